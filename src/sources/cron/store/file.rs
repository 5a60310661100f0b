//! The register as a file, for manifests of a folder: read, compared and replaced under a lock, durable before a write
//! counts as accepted. Must never be on a file system without locks and atomic renames, and proves nothing beyond the
//! machine (or volume) that it is on.

use super::{Found, Skew, Store, Trouble};
use crate::{
    api::cronjob_trigger::CronJobTriggerStatus,
    sources::cron::{
        protocol::Answer,
        register::{Register, View, Write},
    },
    testkit,
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// One trigger's file.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    uid: String,
    /// What a seeded bug keeps here instead of in the file.
    unsaved: Option<(u64, Register)>,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// A trigger made anew under the same name is another series.
    uid: String,
    version: u64,
    status: CronJobTriggerStatus,
}

impl FileStore {
    /// The file of the trigger `name` (anything) with this uid in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(dir: &Path, name: &str, uid: &str) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        let path = dir.join(format!("{}.json", name.chars().map(safe).collect::<String>()));
        Ok(Self { path, uid: uid.to_owned(), unsaved: None })
    }

    /// Held until it is dropped; the file itself is replaced, so the lock is on one beside it.
    fn lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(self.path.with_extension("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    fn kept(&self) -> Result<(u64, Register), String> {
        if let Some(unsaved) = &self.unsaved {
            return Ok(unsaved.clone());
        }
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, Register::default())),
            other => other.map_err(|error| self.words("cannot be read", &error))?,
        };
        let kept: Kept = serde_json::from_slice(&text)
            .map_err(|error| self.words("is damaged; move it away to begin anew", &error))?;
        if kept.uid != self.uid {
            return Ok((kept.version, Register::default()));
        }
        let register = Register::of_status(&kept.status);
        register.map(|register| (kept.version, register)).map_err(|error| self.words("is damaged", &error))
    }

    fn words(&self, what: &str, error: &dyn std::fmt::Display) -> String {
        format!("{} {what}: {error}", self.path.display())
    }

    /// Replaces the file. An error means that the old one is still there and stays.
    fn replace(&self, version: u64, register: &Register) -> io::Result<()> {
        let kept = Kept { uid: self.uid.clone(), version, status: register.to_status() };
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&kept)?)?;
        // Not repeated after an error: what the kernel dropped once it does not report twice.
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

impl Store for FileStore {
    fn read(&mut self) -> Result<Found, Trouble> {
        let _lock = self.lock().map_err(|error| Trouble::Away(self.words("cannot be locked", &error)))?;
        let (version, register) = self.kept().map_err(Trouble::Refused)?;
        Ok(Found { view: View { version: version.to_string(), register }, created: None })
    }

    fn write(&mut self, write: &Write) -> (Answer, String) {
        let lock = match self.lock() {
            Ok(lock) => lock,
            Err(error) => return (Answer::Refused, self.words("cannot be locked", &error)),
        };
        let version = match self.kept() {
            Ok((version, _)) if version.to_string() == write.version => version + 1,
            Ok(_) => return (Answer::Conflict, String::new()),
            Err(why) => return (Answer::Refused, why),
        };
        if testkit::bug("claims_in_memory") && self.path.exists() {
            self.unsaved = Some((version, write.register.clone()));
            return (Answer::Accepted(version.to_string()), String::new());
        }
        if let Err(error) = self.replace(version, &write.register) {
            return (Answer::Refused, self.words("cannot be written", &error));
        }
        let synced = self.sync_folder();
        drop(lock);
        match synced {
            Ok(()) => (Answer::Accepted(version.to_string()), String::new()),
            // Visible, and perhaps gone after a power cut: the identical write will find it.
            Err(error) => (Answer::Unknown, self.words("may not be durable", &error)),
        }
    }

    fn skew(&self) -> Option<Skew> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> FileStore {
        FileStore::open(dir, "shop/nightly", "u-1").expect("a folder of our own")
    }

    fn claim(last: i64) -> Register {
        Register { since: Some(1), last: Some(last), missed: 2, open: Vec::new() }
    }

    #[test]
    fn only_one_of_two_writes_on_one_version_takes_effect_and_it_stays() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (mut one, mut other) = (store(dir.path()), store(dir.path()));
        let found = one.read().expect("read");
        assert_eq!(found.view, View { version: "0".to_owned(), register: Register::default() });
        let write = |last| Write { version: "0".to_owned(), register: claim(last) };
        assert_eq!(one.write(&write(60)).0, Answer::Accepted("1".to_owned()));
        assert_eq!(other.write(&write(120)).0, Answer::Conflict);
        assert_eq!(one.write(&write(60)).0, Answer::Conflict, "the identical write, once more");
        assert_eq!(other.read().expect("read").view.register, claim(60));
        // The same name, made anew.
        let mut new = FileStore::open(dir.path(), "shop/nightly", "u-2").expect("a folder");
        assert_eq!(new.read().expect("read").view.register, Register::default());
    }

    #[test]
    fn a_damaged_file_is_refused_and_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut store = store(dir.path());
        fs::write(dir.path().join("shop_nightly.json"), "{").expect("written");
        let Err(Trouble::Refused(why)) = store.read() else { panic!("a damaged file was read") };
        assert!(why.contains("shop_nightly.json is damaged"), "{why}");
        let write = Write { version: "0".to_owned(), register: claim(60) };
        assert_eq!(store.write(&write).0, Answer::Refused);
        assert_eq!(fs::read_to_string(dir.path().join("shop_nightly.json")).expect("still there"), "{");
    }
}
