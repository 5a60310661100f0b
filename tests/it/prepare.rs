//! `prepare` as an init container runs it: every content type, checksums, and archives that try to get out. Must never
//! need a network beyond loopback.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kubeless::pod::prepare::{self, Given, Packed, PrepareArgs};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const CODE: &str = "def hello(event, context):\n    return 'it''s me'\n";

struct Pod {
    folder: TempDir,
    arguments: PrepareArgs,
}

impl Pod {
    fn new(source: &[u8], given: Given, packed: Packed) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (code, into) = (folder.path().join("code"), folder.path().join("kubeless"));
        fs::write(&code, source).unwrap();
        fs::create_dir(&into).unwrap();
        let arguments = PrepareArgs {
            code,
            given,
            packed,
            sha256: None,
            into,
            name: Some("hello.py".to_owned()),
            deps: None,
            deps_sha256: None,
            max_bytes: 1 << 20,
            max_entries: 100,
        };
        Self { folder, arguments }
    }

    fn run(&self) -> Result<(), String> {
        prepare::run(&self.arguments).map_err(|error| error.to_string())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.arguments.into.join(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    /// Everything in the Pod's folder beside the code, by name.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    folders.push(path.clone());
                }
                found.push(path);
            }
        }
        found
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

type Entry<'a> = (&'a str, tar::EntryType, &'a str);

fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4777);
        // Past the checks of the library, as an attacker would.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let link = kind.is_symlink() || kind.is_hard_link();
        if link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if link { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bz2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .unix_permissions(0o640);
        match name.strip_prefix("link:") {
            Some(name) => writer.add_symlink(name, *content, options).unwrap(),
            None => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(content.as_bytes()).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

const FILE: tar::EntryType = tar::EntryType::Regular;

#[test]
fn text_and_base64_become_one_file_beside_the_dependencies() {
    let mut text = Pod::new(CODE.as_bytes(), Given::Text, Packed::No);
    let deps = text.folder.path().join("requirements.txt");
    fs::write(&deps, "bottle\n").unwrap();
    text.arguments.deps = Some(deps);
    text.arguments.sha256 = Some(hash(CODE.as_bytes()).to_uppercase());
    text.arguments.deps_sha256 = Some(hash(b"bottle\n"));
    text.run().unwrap();
    // A Pod that starts again finds its files and replaces them.
    text.run().unwrap();
    assert_eq!(
        (text.read("hello.py"), text.read("requirements.txt")),
        (CODE.to_owned(), "bottle\n".to_owned())
    );
    let wrapped: String = BASE64_STANDARD.encode(CODE).chars().flat_map(|c| [c, '\n']).collect();
    let mut coded = Pod::new(wrapped.as_bytes(), Given::Base64, Packed::No);
    coded.arguments.sha256 = Some(hash(CODE.as_bytes()));
    coded.run().unwrap();
    assert_eq!(coded.read("hello.py"), CODE);
    let broken = Pod::new(b"!", Given::Base64, Packed::No).run().unwrap_err();
    assert!(broken.contains("not base64"), "{broken}");
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let mut pod = Pod::new(&zip_of(&[("hello.py", CODE)]), Given::Text, Packed::Zip);
    pod.arguments.sha256 = Some(hash(b"other"));
    let error = pod.run().unwrap_err();
    assert!(error.contains("checksum of the code"), "{error}");
    assert!(fs::read_dir(&pod.arguments.into).unwrap().next().is_none());
    pod.arguments.sha256 = None;
    let deps = pod.folder.path().join("package.json");
    fs::write(&deps, "{}").unwrap();
    pod.arguments.deps = Some(deps);
    pod.arguments.deps_sha256 = Some(hash(b"[]"));
    let error = pod.run().unwrap_err();
    assert!(
        error.contains("dependency file") && !pod.arguments.into.join("package.json").exists(),
        "{error}"
    );
}

#[test]
fn every_archive_form_is_unpacked() {
    let plain = tar_of(&[
        ("./", tar::EntryType::Directory, ""),
        ("hello.py", FILE, CODE),
        ("lib/deep/data.txt", FILE, "data"),
        ("bin/run", tar::EntryType::Symlink, "../lib/deep/data.txt"),
        ("again", tar::EntryType::Link, "lib/deep/data.txt"),
    ]);
    for (name, archive) in
        [("gz", gz(&plain)), ("bz2", bz2(&plain)), ("xz", xz(&plain)), ("plain", plain.clone())]
    {
        let coded = BASE64_STANDARD.encode(&archive);
        let mut pod = Pod::new(coded.as_bytes(), Given::Base64, Packed::Tar);
        pod.arguments.sha256 = Some(hash(&archive));
        pod.run().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(pod.read("hello.py"), CODE, "{name}");
        assert_eq!(
            (pod.read("bin/run"), pod.read("again")),
            ("data".to_owned(), "data".to_owned()),
            "{name}"
        );
    }
    let zip = zip_of(&[("hello.py", CODE), ("lib\\win.txt", "w"), ("link:l", "hello.py")]);
    let pod = Pod::new(&zip, Given::Text, Packed::Zip);
    pod.run().unwrap();
    assert_eq!(
        (pod.read("hello.py"), pod.read("lib/win.txt"), pod.read("l")),
        (CODE.into(), "w".into(), CODE.into())
    );
    let wrong = Pod::new(CODE.as_bytes(), Given::Text, Packed::Tar).run().unwrap_err();
    assert!(wrong.contains("function-content-type"), "{wrong}");
    let cut = Pod::new(&gz(&plain)[..60], Given::Text, Packed::Tar).run().unwrap_err();
    assert!(cut.contains("cannot be read") || cut.contains("hello.py"), "{cut}");
}

#[test]
fn no_archive_gets_out_of_its_folder() {
    let link = tar::EntryType::Symlink;
    let attacks: &[&[Entry<'_>]] = &[
        &[("../out", FILE, "x")],
        &[("/tmp/kubeless-out", FILE, "x")],
        &[("a/../../out", FILE, "x")],
        &[("l", link, "/tmp"), ("l/out", FILE, "x")],
        &[("l", link, ".."), ("l/out", FILE, "x")],
        &[("a/l", link, ".."), ("a/l/out", FILE, "x")],
        &[("a/b/l", link, "../.."), ("m", link, "a/b/l/.."), ("m/out", FILE, "x")],
        &[("d", link, "."), ("d/out", FILE, "x")],
        &[("h", tar::EntryType::Link, "../code")],
        &[("h", tar::EntryType::Link, "/etc/hostname")],
        &[("l", link, "hello.py"), ("h", tar::EntryType::Link, "l")],
        &[("dev", tar::EntryType::Char, "")],
        &[("pipe", tar::EntryType::Fifo, "")],
        &[("disk", tar::EntryType::Block, "")],
    ];
    for attack in attacks {
        let pod = Pod::new(&gz(&tar_of(attack)), Given::Text, Packed::Tar);
        let error = pod.run().expect_err(&format!("{attack:?}"));
        let out: Vec<_> =
            pod.files().into_iter().filter(|path| path.ends_with("out") || path.ends_with("h")).collect();
        assert!(
            out.is_empty() && !Path::new("/tmp/kubeless-out").exists(),
            "{attack:?} wrote {out:?}: {error}"
        );
    }
    for entries in
        [[("../out", "x"), ("y", "")], [("/abs", "x"), ("y", "")], [("link:l", "../.."), ("l/out", "x")]]
    {
        let pod = Pod::new(&zip_of(&entries), Given::Text, Packed::Zip);
        pod.run().expect_err("refused");
        assert!(!pod.files().iter().any(|path| path.ends_with("out")), "{entries:?}");
    }
}

#[test]
fn bombs_stop_at_the_limits() {
    let zeros = "\0".repeat(4 << 20);
    let pod = Pod::new(&gz(&tar_of(&[("big", FILE, &zeros)])), Given::Text, Packed::Tar);
    let error = pod.run().unwrap_err();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let pod = Pod::new(&zip_of(&[("big", &zeros)]), Given::Text, Packed::Zip);
    assert!(pod.run().unwrap_err().contains("--max-bytes"));
    let names: Vec<String> = (0..200).map(|n| format!("f{n}")).collect();
    let many: Vec<Entry<'_>> = names.iter().map(|name| (name.as_str(), FILE, "")).collect();
    let error = Pod::new(&tar_of(&many), Given::Text, Packed::Tar).run().unwrap_err();
    assert!(error.contains("more than 100 files and folders"), "{error}");
}

/// Serves one answer for each connection; the URL of the server.
fn serve(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/code.tar.gz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(&answer);
        }
    });
    url
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn downloads_follow_redirects_and_fail_on_error_pages() {
    let archive = gz(&tar_of(&[("hello.py", FILE, CODE)]));
    let target = serve(vec![answer("200 OK", &archive)]);
    let first = serve(vec![answer(&format!("302 Found\r\nlocation: {target}"), b"")]);
    let mut pod = Pod::new(format!("{first}\n").as_bytes(), Given::Url, Packed::Tar);
    pod.arguments.sha256 = Some(hash(&archive));
    pod.run().unwrap();
    assert_eq!(pod.read("hello.py"), CODE);
    for status in ["404 Not Found", "500 Internal Server Error"] {
        let url = serve(vec![answer(status, b"<html>an error page</html>")]);
        let pod = Pod::new(format!("{url}?token=secret").as_bytes(), Given::Url, Packed::No);
        let error = pod.run().unwrap_err();
        assert!(error.contains(&status[..3]) && !error.contains("secret"), "{error}");
        assert!(fs::read_dir(&pod.arguments.into).unwrap().next().is_none(), "no file made of the page");
    }
    let long = serve(vec![answer("200 OK", &vec![b'x'; (1 << 20) + 1])]);
    let error = Pod::new(long.as_bytes(), Given::Url, Packed::No).run().unwrap_err();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let cut = serve(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()]);
    Pod::new(cut.as_bytes(), Given::Url, Packed::No).run().expect_err("cut off");
}
