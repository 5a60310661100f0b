//! The register in a folder: one file a version of a key, put in its place by a link that fails where one is already. Several
//! processes may share the folder, and none holds a lock: one that stands still must not hold up its successor. Must never
//! leave half a text, nor call one written that a crash could take back.

use super::{Later, Put, Store, Stored};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// Between key and version.
const AT: char = '@';
/// Ending of a file that is not yet in place.
const NEW: &str = ".new";
/// Age at which such a file is rubbish that a crash left.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Times that a folder is looked at again because a file of it was replaced meanwhile.
const LOOKS: usize = 20;

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

    fn open<T>(&self, folder: &str, work: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, String> {
        let dir = self.root.join(folder);
        let done = fs::create_dir_all(&dir).and_then(|()| work(&dir));
        done.map_err(|e| {
            format!("register {}: {e}; check that the folder is writable and has space", dir.display())
        })
    }

    fn put_now(&self, folder: &str, key: &str, text: &str, expected: Option<&Stored>) -> Result<Put, String> {
        self.open(folder, |dir| {
            let found = current(dir, Some(key))?.remove(key);
            if found.as_ref() != expected {
                return Ok(Put::Conflict(found));
            }
            let version = expected.map_or(0, version_of) + 1;
            let new = dir.join(format!("{key}.{:016x}{NEW}", fastrand::u64(..)));
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            let linked = fs::hard_link(&new, dir.join(file_name(key, version)));
            fs::remove_file(&new)?;
            match linked {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Ok(Put::Conflict(current(dir, Some(key))?.remove(key)));
                }
                linked => linked?,
            }
            File::open(dir)?.sync_all()?;
            // A version goes only when a later one is there: whoever was late with this very number sees that one now.
            let found = current(dir, Some(key))?.remove(key);
            let ours = Stored { text: text.to_owned(), tag: version.to_string() };
            if found.as_ref() != Some(&ours) {
                return Ok(Put::Conflict(found));
            }
            if let Some(expected) = expected {
                remove(&dir.join(file_name(key, version_of(expected))))?;
            }
            Ok(Put::Done(ours))
        })
    }
}

impl Store for Folder {
    fn list<'a>(&'a self, folder: &'a str) -> Later<'a, Result<Vec<(String, Stored)>, String>> {
        Box::pin(async move { self.open(folder, |dir| Ok(current(dir, None)?.into_iter().collect())) })
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
            self.open(folder, |dir| match current(dir, Some(key))?.get(key) {
                Some(found) if found == expected => remove(&dir.join(file_name(key, version_of(expected)))),
                _ => Ok(()),
            })
        })
    }
}

fn file_name(key: &str, version: u64) -> String {
    format!("{key}{AT}{version:020}")
}

fn version_of(stored: &Stored) -> u64 {
    stored.tag.parse().unwrap_or(0)
}

/// The latest version of every key, or of `only` one.
fn current(dir: &Path, only: Option<&str>) -> io::Result<BTreeMap<String, Stored>> {
    for _ in 0..LOOKS {
        let mut latest: BTreeMap<String, u64> = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.ends_with(NEW) {
                clear(&entry);
                continue;
            }
            let Some((key, version)) = name.rsplit_once(AT) else { continue };
            let Ok(version) = version.parse::<u64>() else { continue };
            if only.is_none_or(|only| only == key) {
                let last = latest.entry(key.to_owned()).or_default();
                *last = version.max(*last);
            }
        }
        let mut found = BTreeMap::new();
        let whole = latest.iter().all(|(key, version)| {
            match fs::read_to_string(dir.join(file_name(key, *version))) {
                Ok(text) => {
                    found.insert(key.clone(), Stored { text, tag: version.to_string() });
                    true
                }
                Err(_) => false,
            }
        });
        if whole {
            return Ok(found);
        }
    }
    Err(io::Error::other("its files cannot be read, or change faster than they can be"))
}

fn clear(entry: &fs::DirEntry) {
    let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    if age.is_some_and(|age| age > ABANDONED) {
        // Somebody else may have been faster.
        let _ = fs::remove_file(entry.path());
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(store: &Folder) -> BTreeMap<String, Stored> {
        store.open("f", |dir| current(dir, None)).unwrap()
    }

    #[test]
    fn a_write_is_refused_unless_what_was_read_still_stands() {
        let dir = tempfile::tempdir().unwrap();
        let store = Folder::new(dir.path().join("deep/er"));
        let Put::Done(one) = store.put_now("f", "k", "one", None).unwrap() else {
            panic!("nothing was there")
        };
        assert_eq!(store.put_now("f", "k", "two", None).unwrap(), Put::Conflict(Some(one.clone())));
        let Put::Done(two) = store.put_now("f", "k", "two", Some(&one)).unwrap() else {
            panic!("one was there")
        };
        assert_eq!(store.put_now("f", "k", "three", Some(&one)).unwrap(), Put::Conflict(Some(two.clone())));
        fs::write(dir.path().join("deep/er/f/k.17.new"), "torn").unwrap();
        assert_eq!(list(&store), BTreeMap::from([("k".to_owned(), two)]));
        assert_eq!(store.put_now("f", "gone", "x", Some(&one)).unwrap(), Put::Conflict(None));
    }

    #[test]
    fn who_comes_late_with_a_number_that_was_given_away_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Folder::new(dir.path().to_owned());
        let mut last = None;
        for text in ["one", "two", "three"] {
            let Put::Done(done) = store.put_now("f", "k", text, last.as_ref()).unwrap() else {
                panic!("{text}")
            };
            last = Some(done);
        }
        // Frozen after it read "one", and its check is over: only the link is left to do. Version 2 is free again.
        fs::write(dir.path().join("f").join(file_name("k", 2)), "late").unwrap();
        assert_eq!(list(&store)["k"].text, "three");
    }

    #[test]
    fn of_many_writers_one_wins_each_round() {
        let dir = tempfile::tempdir().unwrap();
        let store = Folder::new(dir.path().to_owned());
        let mut last = None;
        for round in 0..20 {
            let won = std::thread::scope(|scope| {
                let (store, last) = (&store, last.as_ref());
                let write = |n| move || store.put_now("f", "k", &format!("{round}-{n}"), last);
                let writers: Vec<_> = (0..4).map(|n| scope.spawn(write(n))).collect();
                writers
                    .into_iter()
                    .filter_map(|w| w.join().ok()?.ok())
                    .filter(|p| matches!(p, Put::Done(_)))
                    .count()
            });
            assert_eq!(won, 1);
            last = list(&store).remove("k");
        }
    }
}
