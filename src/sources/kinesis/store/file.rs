//! The register in a folder of this machine: one file a key, replaced whole. Several processes may share the folder: each
//! write holds its lock. Must never leave half a text, nor call one written that a crash could take back.

use super::{Later, Put, Store, Stored};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Name of the file whose lock a writer holds.
const LOCK: &str = ".lock";
/// Ending of a file that is not yet in place.
const NEW: &str = ".new";

/// See the module.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// A store below `root`, which is made when it is needed.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn locked<T>(&self, folder: &str, work: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, String> {
        let dir = self.root.join(folder);
        let done = || {
            fs::create_dir_all(&dir)?;
            let lock = File::create(dir.join(LOCK))?;
            // Held for one small write; given back when the file closes.
            flock(&lock, FlockOperation::LockExclusive)?;
            work(&dir)
        };
        done().map_err(|e| {
            format!("register {}: {e}; check that the folder is writable and has space", dir.display())
        })
    }

    fn put_now(&self, folder: &str, key: &str, text: &str, expected: Option<&Stored>) -> Result<Put, String> {
        self.locked(folder, |dir| {
            let path = dir.join(key);
            let found = read(&path)?;
            if found.as_ref().map(|stored| &stored.text) != expected.map(|stored| &stored.text) {
                return Ok(Put::Conflict(found));
            }
            let new = dir.join(format!("{key}{NEW}"));
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()?;
            Ok(Put::Done(Stored { text: text.to_owned(), tag: String::new() }))
        })
    }

    fn list_now(&self, folder: &str) -> Result<Vec<(String, Stored)>, String> {
        self.locked(folder, |dir| {
            let mut found = Vec::new();
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                if name == LOCK || name.ends_with(NEW) || !entry.file_type()?.is_file() {
                    continue;
                }
                if let Some(stored) = read(&entry.path())? {
                    found.push((name, stored));
                }
            }
            Ok(found)
        })
    }
}

impl Store for Folder {
    fn list<'a>(&'a self, folder: &'a str) -> Later<'a, Result<Vec<(String, Stored)>, String>> {
        Box::pin(async move { self.list_now(folder) })
    }

    fn put<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        text: &'a str,
        expected: Option<&'a Stored>,
    ) -> Later<'a, Put> {
        Box::pin(async move { self.put_now(folder, key, text, expected).unwrap_or_else(Put::Unknown) })
    }

    fn delete<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        expected: &'a Stored,
    ) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            self.locked(folder, |dir| {
                let path = dir.join(key);
                match read(&path)? {
                    Some(found) if found.text == expected.text => fs::remove_file(&path),
                    _ => Ok(()),
                }
            })
        })
    }
}

fn read(path: &Path) -> io::Result<Option<Stored>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Stored { text, tag: String::new() })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_refused_unless_what_was_read_still_stands() {
        let dir = tempfile::tempdir().unwrap();
        let store = Folder::new(dir.path().join("deep/er"));
        let Put::Done(one) = store.put_now("f", "k", "one", None).unwrap() else {
            panic!("nothing stood there")
        };
        assert_eq!(store.put_now("f", "k", "two", None).unwrap(), Put::Conflict(Some(one.clone())));
        let Put::Done(two) = store.put_now("f", "k", "two", Some(&one)).unwrap() else {
            panic!("one stood there")
        };
        assert_eq!(store.put_now("f", "k", "three", Some(&one)).unwrap(), Put::Conflict(Some(two.clone())));
        fs::write(dir.path().join("deep/er/f/k2.new"), "torn").unwrap();
        assert_eq!(store.list_now("f").unwrap(), [("k".to_owned(), two)]);
        assert_eq!(store.put_now("f", "gone", "x", Some(&one)).unwrap(), Put::Conflict(None));
    }

    #[test]
    fn of_many_writers_one_wins_each_round() {
        let dir = tempfile::tempdir().unwrap();
        let store = Folder::new(dir.path().to_owned());
        let mut last = None;
        for round in 0..20 {
            let won: usize = std::thread::scope(|scope| {
                let (store, last) = (&store, last.as_ref());
                let writers: Vec<_> = (0..4)
                    .map(|n| scope.spawn(move || store.put_now("f", "k", &format!("{round}-{n}"), last)))
                    .collect();
                writers
                    .into_iter()
                    .filter(|_| true)
                    .map(|w| matches!(w.join(), Ok(Ok(Put::Done(_)))))
                    .filter(|w| *w)
                    .count()
            });
            assert_eq!(won, 1);
            last = store.list_now("f").unwrap().pop().map(|(_, stored)| stored);
        }
    }
}
