//! Reads the journal for the commands: where it is, and which lines count. Must never hide a line that cannot be
//! read: it is told on standard error.

use crate::{
    cli::output::{printable, talk},
    ledger::{
        Outcome,
        journal::{self, Line},
    },
};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// Where the journal is.
#[derive(Debug, clap::Args)]
pub struct Location {
    /// The dispatcher's state folder. Default: that of `kubeless dev` in this folder, else /var/lib/kubeless.
    #[arg(long, value_name = "DIR", env = "KUBELESS_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl Location {
    fn folder(&self) -> PathBuf {
        let local = Path::new(".kubeless/state");
        let state = match &self.state_dir {
            Some(folder) => folder.clone(),
            None if local.is_dir() => local.to_owned(),
            None => crate::config::DispatcherConfig::default().state_dir,
        };
        state.join("journal")
    }

    /// Hands every readable line to `each`, oldest first.
    pub fn for_each(&self, mut each: impl FnMut(Line)) -> anyhow::Result<()> {
        for line in journal::read_dir(&self.folder())? {
            match line {
                Ok(line) => each(line),
                Err(problem) => talk(&format!("warning: {}", printable(&problem.to_string()))),
            }
        }
        Ok(())
    }

    /// The `in_doubt` lines of successors that the claimer's own outcome of the same delivery supersedes (rule N6).
    /// Holds no more than there are `in_doubt` lines.
    pub fn superseded(&self) -> anyhow::Result<Superseded> {
        let mut doubted = HashSet::new();
        self.for_each(|line| {
            if line.outcome == Outcome::InDoubt {
                doubted.insert(key(&line));
            }
        })?;
        let mut settled = HashSet::new();
        if !doubted.is_empty() {
            self.for_each(|line| {
                if line.outcome != Outcome::InDoubt && doubted.contains(&key(&line)) {
                    settled.insert(key(&line));
                }
            })?;
        }
        Ok(Superseded(settled))
    }
}

/// Deliveries that have an outcome of their own beside an `in_doubt`.
#[derive(Debug)]
pub struct Superseded(HashSet<Key>);

impl Superseded {
    /// Whether this line counts.
    pub fn counts(&self, line: &Line) -> bool {
        line.outcome != Outcome::InDoubt || !self.0.contains(&key(line))
    }
}

/// What makes two lines speak of the same delivery.
///
/// Epoch and time are left out: the `in_doubt` of a record that was not read back does not know them.
type Key = (String, String, String, i32, i64, Option<String>);

fn key(line: &Line) -> Key {
    // Lines of before the uid was written have none: their name stands for it.
    let trigger = if line.uid.is_empty() { &line.trigger } else { &line.uid };
    let (stream, coordinates) = (line.stream.clone(), line.coordinates.clone());
    (trigger.clone(), line.function.clone(), stream, line.shard, line.sequence, coordinates)
}
