//! Logs that are cut, and read around that.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use shared::log_cap::LogCap;
use shared::quantity::Bytes;

use super::super::fault;
use super::super::layout::Layout;
use super::cut::{Cut, cut, excess};
use super::largest::largest;
use super::read::{Piece, missing, next};

const CAP: LogCap = LogCap::At(Bytes(1 << 20));

#[test]
fn the_first_tenth_stays_and_the_end_in_whole_blocks() {
    let cap = Bytes(100);
    assert_eq!(excess(100, cap, 1), None);
    assert_eq!(excess(101, cap, 1), Some(10..11));
    assert_eq!(excess(1000, cap, 1), Some(10..910));
    assert_eq!(excess(1000, cap, 8), Some(16..904));
    assert_eq!(excess(107, cap, 8), None, "less than a block");
    assert_eq!(excess(u64::MAX, cap, 4096), Some(4096..u64::MAX - 4095));
}

/// A log of numbered lines.
fn log(dir: &Path, lines: Range<u32>) -> PathBuf {
    let path = dir.join("run.log");
    let mut file = File::options().append(true).create(true).open(&path).unwrap();
    let text: String = lines.map(|line| format!("{line:015}\n")).collect();
    file.write_all(text.as_bytes()).unwrap();
    path
}

/// All that can be read, with holes as their length.
fn read(path: &Path) -> (Vec<u8>, Vec<u64>) {
    let file = File::open(path).unwrap();
    let (mut all, mut holes, mut offset, mut buffer) = (vec![], vec![], 0, vec![0; 5000]);
    loop {
        match next(&file, offset, &mut buffer).unwrap() {
            Piece::Read(got) => {
                all.extend_from_slice(&buffer[..got]);
                offset += got as u64;
            }
            Piece::Missing(gone) => {
                holes.push(gone);
                offset += gone;
            }
            Piece::End => return (all, holes),
        }
    }
}

#[test]
fn what_is_cut_is_given_back_and_what_stays_is_read_as_it_was_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(dir.path(), 0..100);
    assert_eq!(cut(&path, CAP).unwrap(), Cut::Whole);
    log(dir.path(), 100..400_000);
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(cut(&path, LogCap::None).unwrap(), Cut::Whole);
    assert!(read(&path).1.is_empty(), "whole");
    let Cut::Shortened { missing: gone } = cut(&path, CAP).unwrap() else { panic!("not cut") };
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), size, "offsets stay");
    assert!(meta.blocks() * 512 < (1 << 20) + (16 << 10));
    let (text, holes) = read(&path);
    assert_eq!(holes, [gone.0]);
    assert_eq!(missing(&File::open(&path).unwrap()).unwrap(), gone.0);
    assert_eq!(text.len() as u64 + gone.0, size);
    let text = String::from_utf8(text).expect("no zeros");
    assert!(!text.contains('\0') && text.starts_with("000000000000000\n"));
    assert!(text.ends_with("000000000399999\n"));
    // It goes on, and is cut again.
    log(dir.path(), 400_000..500_000);
    assert!(matches!(cut(&path, CAP).unwrap(), Cut::Shortened { missing } if missing > gone));
    assert!(read(&path).0.ends_with(b"000000000499999\n"));
}

#[test]
fn a_hole_up_to_the_end_is_missing_and_a_link_is_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(dir.path(), 0..1);
    File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let (text, holes) = read(&path);
    assert_eq!(text.len() as u64 + holes.iter().sum::<u64>(), 1 << 20);
    assert!(!holes.is_empty());
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(cut(&link, LogCap::At(Bytes(0))).unwrap(), Cut::Whole);
    assert_eq!(cut(&dir.path().join("none"), CAP).unwrap(), Cut::Whole);
}

#[test]
fn the_largest_files_are_named_by_what_they_take() {
    let home = tempfile::tempdir().unwrap();
    let layout = Layout::new(home.path());
    let runs = layout.runs();
    for (segment, name, size) in [("a", "one", 100_000), ("b", "two", 300_000), ("b", "three", 10)]
    {
        fs::create_dir_all(runs.join(segment)).unwrap();
        fs::write(runs.join(segment).join(name), vec![b'x'; size]).unwrap();
    }
    File::create(runs.join("a/hole")).unwrap().set_len(1 << 40).unwrap();
    let names: Vec<_> = largest(&layout, 2)
        .unwrap()
        .into_iter()
        .map(|file| file.path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["two", "one"]);
}

/// Nothing is half done: the log is cut, or it is as it was.
#[test]
fn whoever_dies_before_the_cut_leaves_a_whole_log_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(dir.path(), 0..400_000);
    for stop in 0.. {
        fault::pull_after(stop);
        let done = cut(&path, CAP);
        fault::plug_in();
        match done {
            Err(_) => assert!(read(&path).1.is_empty(), "whole"),
            Ok(done) => {
                assert!(stop > 0 && matches!(done, Cut::Shortened { .. }), "{done:?}");
                return;
            }
        }
    }
}
