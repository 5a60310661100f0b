//! Where local mode keeps its files: everything under DIR/.kubeless. Must never name a path outside of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Name of the folder inside DIR.
pub const FOLDER: &str = ".kubeless";

/// The folders and files of one local session.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The user's folder of manifests, absolute.
    pub dir: PathBuf,
}

impl Layout {
    /// Makes the folders. `dir` must exist.
    pub fn prepare(dir: &Path) -> io::Result<Self> {
        let layout = Self { dir: dir.canonicalize()? };
        for folder in [layout.endpoints(), layout.state(), layout.functions(), layout.logs()] {
            fs::create_dir_all(folder)?;
        }
        // Whoever keeps DIR in git does not want these files there.
        fs::write(layout.root().join(".gitignore"), "*\n")?;
        Ok(layout)
    }

    /// DIR/.kubeless.
    pub fn root(&self) -> PathBuf {
        self.dir.join(FOLDER)
    }

    /// Services and EndpointSlices of the running functions.
    pub fn endpoints(&self) -> PathBuf {
        self.root().join("run/endpoints")
    }

    /// What other programs may want to know about the running session, as JSON.
    pub fn session(&self) -> PathBuf {
        self.root().join("run/dev.json")
    }

    /// The dispatcher's state folder.
    pub fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// The dispatcher's journal.
    pub fn journal(&self) -> PathBuf {
        self.state().join("journal")
    }

    /// Code and dependencies of functions.
    pub fn functions(&self) -> PathBuf {
        self.root().join("functions")
    }

    /// Log files.
    pub fn logs(&self) -> PathBuf {
        self.root().join("logs")
    }

    /// The dispatcher's log of this session.
    pub fn dispatcher_log(&self) -> PathBuf {
        self.logs().join("dispatcher.log")
    }

    /// The generated configuration of the dispatcher.
    pub fn dispatcher_config(&self) -> PathBuf {
        self.root().join("dispatcher.toml")
    }

    /// Process id of the running dispatcher.
    pub fn dispatcher_pid(&self) -> PathBuf {
        self.root().join("dispatcher.pid")
    }

    /// The unpacked runtime server of one language.
    pub fn runtime(&self, language: &str) -> PathBuf {
        self.root().join("runtimes").join(language)
    }

    /// The virtual environment of Python functions.
    pub fn venv(&self) -> PathBuf {
        self.root().join("venv")
    }
}

/// Writes a file so that a reader sees the old or the new content, never a part.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The leading dot keeps folder watchers from reading the unfinished file.
    let unfinished = path.with_file_name(format!(".{name}.tmp"));
    fs::write(&unfinished, content)?;
    fs::rename(&unfinished, path)
}
