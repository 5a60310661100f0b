//! Data on standard output, as table, JSON, YAML or names; talk on standard error. Must never let a value that came
//! from an event act on the terminal.

use clap::ValueEnum;
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, Write},
};

/// Values of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// One name a line.
    Name,
}

/// Values of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Makes it the choice of the whole process.
    pub fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// Rows for people: as wide as their content, two spaces between columns, as kubectl does.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

/// What the colour of a cell says, and the words say, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// It may become well by itself.
    Pending,
    /// Somebody has to act.
    Bad,
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text with a tone.
    pub fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: printable(text.as_ref()), tone }
    }

    fn style(&self) -> anstyle::Style {
        let colour = match self.tone {
            Tone::Plain => return anstyle::Style::new(),
            Tone::Good => anstyle::AnsiColor::Green,
            Tone::Pending => anstyle::AnsiColor::Yellow,
            Tone::Bad => anstyle::AnsiColor::Red,
        };
        colour.on_default()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl Table {
    /// A table with this head.
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(Cell::from).collect()] }
    }

    /// A table without a head: keys and values.
    pub fn plain() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        self.rows.push(cells.iter().map(Cell::from).collect());
    }

    /// Adds a row of cells.
    pub fn cells(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Number of rows, the head included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is not even a head.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The widths that its columns need, at least those given.
    pub fn widths(&self, at_least: &[usize]) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(at_least.len());
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0);
            widest.max(at_least.get(column).copied().unwrap_or(0))
        };
        (0..columns).map(width).collect()
    }

    /// Writes the rows in columns of these widths.
    pub fn write(&self, f: &mut impl std::fmt::Write, widths: &[usize]) -> std::fmt::Result {
        for row in &self.rows {
            let mut gap = 0;
            for (cell, width) in row.iter().zip(widths) {
                let (length, style) = (cell.text.chars().count(), cell.style());
                if length > 0 {
                    write!(f, "{:gap$}{style}{}{style:#}", "", cell.text)?;
                    gap = 0;
                }
                gap += width.saturating_sub(length) + 2;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.write(f, &self.widths(&[]))
    }
}

/// A list in the chosen format: `table` and `name` are made only when asked for.
pub fn list<T: Serialize>(
    out: &mut dyn Write,
    format: Format,
    items: &[T],
    table: impl FnOnce(&[T]) -> Table,
    name: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    match format {
        Format::Table | Format::Wide => write!(out, "{}", table(items))?,
        Format::Name => items.iter().try_for_each(|item| writeln!(out, "{}", printable(&name(item))))?,
        Format::Json | Format::Yaml => {
            document(out, format, &serde_json::json!({ "kind": "List", "items": items }))?;
        }
    }
    Ok(())
}

/// One value as a JSON or YAML document.
pub fn document(out: &mut dyn Write, format: Format, value: &impl Serialize) -> anyhow::Result<()> {
    match format {
        Format::Yaml => write!(out, "{}", serde_saphyr::to_string(value)?)?,
        _ => writeln!(out, "{}", serde_json::to_string_pretty(value)?)?,
    }
    Ok(())
}

/// Objects as kubectl lists them.
pub fn kubernetes_list(items: &[serde_json::Value]) -> serde_json::Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items })
}

/// Objects one after another, as `kubectl apply -f -` reads them.
pub fn yaml_stream(out: &mut dyn Write, objects: &[serde_json::Value]) -> anyhow::Result<()> {
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            writeln!(out, "---")?;
        }
        document(out, Format::Yaml, object)?;
    }
    Ok(())
}

/// An object without what only the API server needs to know about it (who wrote which field).
pub fn presentable(object: &serde_json::Value) -> serde_json::Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Standard output, coloured or not by the choice of [`Color`].
pub fn stdout() -> impl Write {
    anstream::stdout().lock()
}

/// Says something that is not data.
pub fn talk(text: &str) {
    // Nobody can be told that standard error is gone.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Whether the reader of standard output went away (`| head`): not an error.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// The text with control characters escaped.
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, character| {
        if character.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(safe, "{}", character.escape_unicode());
        } else {
            safe.push(character);
        }
        safe
    })
}

/// [`printable`], but lines stay lines: for messages of several lines.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// [`printable`], but every line end and tab stays: for bodies.
pub fn printable_text(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, character| {
        match character {
            '\n' | '\t' => safe.push(character),
            character => safe.push_str(&printable(character.encode_utf8(&mut [0; 4]))),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let mut table = Table::new(&["ID", "OUTCOME"]);
        table.row(&["a-long-id", "delivered"]);
        table.row(&["b", "in_doubt"]);
        assert_eq!(table.to_string(), "ID         OUTCOME\na-long-id  delivered\nb          in_doubt\n");
    }

    #[test]
    fn escape_sequences_are_shown_not_obeyed() {
        let mut table = Table::plain();
        table.row(&["\u{1b}[2J"]);
        assert_eq!(table.to_string(), "\\u{1b}[2J\n");
    }
}
