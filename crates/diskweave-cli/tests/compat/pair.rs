//! One command line, run by both in folders of their own, and what differs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::given::words;
use super::table::{Case, What};

/// Something that differs.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) what: What,
    /// Both, for whoever looks into it.
    pub(crate) text: String,
}

/// What one of them answered, and where it left files.
struct Side {
    dir: TempDir,
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `case` on copies of the folder `given`.
pub(crate) fn run(case: &Case, given: &Path) -> Vec<Difference> {
    let words = words(case.line);
    let ours = side(
        given,
        env!("CARGO_BIN_EXE_diskweave"),
        &[&["--compat=qemu-img".to_string()], &*words].concat(),
    );
    let theirs = side(given, "qemu-img", &words);
    let mut found = Vec::new();
    let mut hold = |what, ours: &str, theirs: &str| {
        if ours != theirs {
            let text = format!("-- {what:?}, ours:\n{ours}\n-- {what:?}, theirs:\n{theirs}");
            found.push(Difference { what, text });
        }
    };
    hold(
        What::Code,
        &format!("{:?}", ours.code),
        &format!("{:?}", theirs.code),
    );
    hold(What::Stdout, &ours.out, &theirs.out);
    hold(What::Stderr, &ours.err, &theirs.err);
    let left = files(case, &ours, &theirs);
    hold(What::Files, &left, "");
    found
}

fn side(given: &Path, program: &str, arguments: &[String]) -> Side {
    let dir = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["-a", "--sparse=auto"])
        .arg(given.join("."))
        .arg(dir.path())
        .status();
    assert!(copied.unwrap().success());
    // Nobody waits for ever: not for a damaged image, and not for a lock.
    let output = Command::new("timeout")
        .args(["20", program])
        .args(arguments)
        .current_dir(dir.path())
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Side {
        code: output.status.code(),
        out: plain(&text(&output.stdout), dir.path()),
        err: plain(&text(&output.stderr), dir.path()),
        dir,
    }
}

/// `text` without what differs from one run to the next: where it ran, and how long it took.
fn plain(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "DIR");
    let lines = text.split_inclusive('\n').map(|line| {
        let seconds = line.strip_prefix("Run completed in ");
        match seconds.and_then(|rest| rest.strip_suffix(" seconds.\n")) {
            Some(number) if number.parse::<f64>().is_ok() => "Run completed in X seconds.\n",
            _ => line,
        }
    });
    lines.collect()
}

/// How the files that were left differ; nothing where they do not.
fn files(case: &Case, ours: &Side, theirs: &Side) -> String {
    let [mine, other] = [ours, theirs].map(|side| names(side.dir.path()));
    if mine != other {
        return format!("ours: {mine:?}\ntheirs: {other:?}");
    }
    let mut found = String::new();
    for name in mine {
        let [mine, other] = [ours, theirs].map(|side| side.dir.path().join(&name));
        if mine.is_dir() || same_bytes(&mine, &other) {
            continue;
        }
        match case.leaves.iter().find(|(_, file)| *file == name) {
            None => found += &format!("{name} has not the same bytes\n"),
            Some((format, _)) => found += &content(format, &name, &mine, &other),
        }
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let same = Command::new("cmp").arg("-s").args([a, b]).status();
    same.unwrap().success()
}

/// How two images differ in what they hold, what a check says of them, and what they are.
fn content(format: &str, name: &str, ours: &Path, theirs: &Path) -> String {
    let ask = |dir: &Path, arguments: &[&str]| {
        let output = Command::new("qemu-img")
            .args(arguments)
            .current_dir(dir)
            .output();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let mut found = String::new();
    let [mine, other] = [ours, theirs].map(|path| path.to_str().expect("a plain name"));
    let formats = ["compare", "-f", format, "-F", format, mine, other];
    // Where a parent or a data file is gone only facts are left to compare.
    let (format, compared) = match format {
        "facts" => ("qcow2", (Some(0), String::new(), String::new())),
        format => (format, ask(Path::new("/"), &formats)),
    };
    if compared.0 != Some(0) || compared.1.contains("Warning") {
        found += &format!("{name} holds something else: {compared:?}\n");
    }
    let [mine, other] = [ours, theirs].map(|path| path.parent().expect("in a folder"));
    if format == "qcow2" {
        let checked = ask(mine, &["check", "-q", "-f", format, name]);
        let wanted = ask(other, &["check", "-q", "-f", format, name]);
        if checked != wanted {
            found += &format!("{name} checks otherwise: {checked:?}, theirs {wanted:?}\n");
        }
    }
    let [told, wanted] = [mine, other].map(|dir| {
        let (_, text, _) = ask(dir, &["info", "-f", format, name]);
        let mut lines: Vec<&str> = text.lines().collect();
        // How much the host has set aside, and how long the file is, is up to who made it.
        lines.retain(|line| {
            !line.trim_start().starts_with("disk size")
                && !line.trim_start().starts_with("file length")
        });
        // The rest is but for when a snapshot was taken.
        lines
            .iter()
            .map(|line| match line.find(" 20") {
                Some(at) if line.contains("0000:00:00") => &line[..at],
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n")
    });
    if told != wanted {
        found += &format!("{name} is told of otherwise:\n{told}\ntheirs:\n{wanted}\n");
    }
    found
}
