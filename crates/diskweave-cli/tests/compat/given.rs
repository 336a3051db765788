//! What a case starts from: files that QEMU's own tools made, or that the corpus has, and damage.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use testkit::corpus::{copy_sparse, corpus};

/// `line` as words; what is between `'` and `'` is one, or a part of one.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A folder in which `steps` were done; `None` where that takes the corpus, which is not there.
///
/// - `img …`: `qemu-img …`, which must succeed
/// - `io FORMAT FILE COMMAND; …`: `qemu-io` with each of these commands
/// - `corpus ID`: that image with all that belongs to it, by its own name
/// - `poke FILE OFFSET HEX`: these bytes at that offset
/// - `length FILE BYTES`: shorter or longer, made if it is not there
/// - `text FILE TEXT`, `folder NAME`, `copy FROM TO`, `remove FILE`
pub(crate) fn prepare(steps: &[&str]) -> Option<TempDir> {
    let dir = tempfile::tempdir().unwrap();
    for step in steps {
        take(dir.path(), step)?;
    }
    Some(dir)
}

fn take(dir: &Path, step: &str) -> Option<()> {
    let (verb, rest) = step.split_once(' ').expect("a step has arguments");
    let words = words(rest);
    let file = dir.join(&words[0]);
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => word.parse().unwrap(),
    };
    match verb {
        "img" => tool(dir, "qemu-img", &words),
        "io" => {
            let (place, commands) = (&words[..2], words[2..].join(" "));
            let mut arguments = vec!["-f".to_string(), place[0].clone()];
            for command in commands.split(';') {
                arguments.extend(["-c".to_string(), command.trim().to_string()]);
            }
            arguments.push(place[1].clone());
            tool(dir, "qemu-io", &arguments);
        }
        "corpus" => {
            let image = corpus()?.get(&words[0]).copy_to(dir);
            let folder = image.parent().expect("below a folder");
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                fs::rename(entry.path(), dir.join(entry.file_name())).unwrap();
            }
            fs::remove_dir(folder).unwrap();
        }
        "poke" => {
            let digits = words[2].as_bytes().chunks(2);
            let bytes: Vec<u8> = digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            let file = File::options().write(true).open(file).unwrap();
            file.write_all_at(&bytes, number(&words[1])).unwrap();
        }
        "length" => {
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(false).open(file);
            file.unwrap().set_len(number(&words[1])).unwrap();
        }
        "text" => fs::write(file, words[1..].join(" ")).unwrap(),
        "folder" => fs::create_dir(file).unwrap(),
        "copy" => copy_sparse(&file, &dir.join(&words[1])),
        "remove" => fs::remove_file(file).unwrap(),
        other => panic!("no step {other:?}"),
    }
    Some(())
}

fn tool(dir: &Path, program: &str, arguments: &[String]) {
    let mut command = Command::new(program);
    let output = command.current_dir(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
