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
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// A table without a head: keys and values.
    pub fn plain() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        self.rows.push(cells.iter().map(|cell| printable(cell.as_ref())).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
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
        Format::Table => write!(out, "{}", table(items))?,
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
