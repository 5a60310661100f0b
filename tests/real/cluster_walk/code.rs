//! The code of the walk's functions in every form that a user may give it: a file, two archives, a URL, and one that needs a
//! package from an index. Must never need anything but this machine.

use super::super::support::web::Web;
use std::{
    collections::BTreeMap,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Every function of the walk, by where its code comes from.
pub const FUNCTIONS: [&str; 5] = ["inline", "zipped", "tarred", "linked", "needy"];

// One write a line: calls run side by side, and pieces of `print` mix.
const PLAIN: &str = r#"
import os

def main(event, context):
    os.write(1, f"walked {event['event-id']}\n".encode())
    return event["data"]
"#;

const NEEDY: &str = r#"
import os, walkgreeting

def main(event, context):
    if event["event-namespace"].startswith("cli"):
        return {"word": walkgreeting.WORD, "data": event["data"]}
    os.write(1, f"walked {event['event-id']}\n".encode())
"#;

/// Files in a folder, and a server for what is named by URL.
pub struct Sources {
    dir: PathBuf,
    /// For `--dependencies` of `needy`.
    pub requirements: String,
    pub web: Web,
}

impl Sources {
    pub fn write(dir: &Path, machine: Ipv4Addr) -> Self {
        let web = Web::start(
            machine,
            BTreeMap::from([
                ("linked/plain.py".to_owned(), PLAIN.as_bytes().to_vec()),
                (
                    "simple/walkgreeting/".to_owned(),
                    format!("<!DOCTYPE html><a href=\"../../{WHEEL}\">{WHEEL}</a>").into_bytes(),
                ),
                (WHEEL.to_owned(), wheel()),
            ]),
        );
        let requirements = format!(
            "--index-url {}\n--trusted-host {}\nwalkgreeting==1.0\n",
            web.url("simple/"),
            web.address().ip()
        );
        let files: [(&str, &[u8]); 5] = [
            ("plain.py", PLAIN.as_bytes()),
            ("needy.py", NEEDY.as_bytes()),
            ("plain.zip", &zip(&[("plain.py", PLAIN)])),
            ("plain.tar.gz", &tar_gz("plain.py", PLAIN)),
            ("requirements.txt", requirements.as_bytes()),
        ];
        for (name, content) in files {
            std::fs::write(dir.join(name), content).unwrap();
        }
        let requirements = dir.join("requirements.txt").display().to_string();
        Self { dir: dir.to_owned(), requirements, web }
    }

    /// What `--from-file` of a function is.
    pub fn of(&self, function: &str) -> String {
        let file = match function {
            "inline" => "plain.py",
            "zipped" => "plain.zip",
            "tarred" => "plain.tar.gz",
            "needy" => "needy.py",
            _ => return self.web.url("linked/plain.py"),
        };
        self.dir.join(file).display().to_string()
    }
}

const WHEEL: &str = "walkgreeting-1.0-py3-none-any.whl";

/// A package without anything compiled, as an index would serve it.
fn wheel() -> Vec<u8> {
    zip(&[
        ("walkgreeting.py", "WORD = 'from the index'\n"),
        ("walkgreeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: walkgreeting\nVersion: 1.0\n"),
        (
            "walkgreeting-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: walk\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        (
            "walkgreeting-1.0.dist-info/RECORD",
            "walkgreeting.py,,\nwalkgreeting-1.0.dist-info/METADATA,,\nwalkgreeting-1.0.dist-info/WHEEL,,\n\
             walkgreeting-1.0.dist-info/RECORD,,\n",
        ),
    ])
}

fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn tar_gz(name: &str, content: &str) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}
