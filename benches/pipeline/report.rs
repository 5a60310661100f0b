//! From runs to a table: minimum, median, maximum. Must never show a figure without its spread.

/// One row of the table.
pub struct Row {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
}

/// Rows of one measurement, printed as Markdown.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a figure that each run gave once; returns its median.
    pub fn add(&mut self, name: &str, unit: &'static str, values: impl IntoIterator<Item = f64>) -> f64 {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = median(&values);
        self.0.push(Row { name: name.to_owned(), unit, values });
        middle
    }

    /// Prints it under `title`.
    pub fn print(&self, title: &str) {
        println!("\n{title}\n\n| figure | unit | minimum | median | maximum |\n|---|---|---|---|---|");
        for row in &self.0 {
            let (low, high) = (row.values.first().copied(), row.values.last().copied());
            let (low, high) = (show(low.unwrap_or(0.0)), show(high.unwrap_or(0.0)));
            println!("| {} | {} | {low} | {} | {high} |", row.name, row.unit, show(median(&row.values)));
        }
    }
}

/// Of sorted values; the mean of the middle two where their number is even.
fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Three significant places are more than the machine gives.
pub fn show(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
