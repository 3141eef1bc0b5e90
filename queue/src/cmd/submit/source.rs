//! The file that a batch comes from, to be read several times: what is no plain file is copied to
//! a nameless one first, so that no more than a line at a time is kept in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use shared::task::{BadSpec, MAX_TASK_BYTES};
use shared::text;

use crate::cmd::Stop;

/// A batch file that can be read again from its start; stdin and pipes were copied first.
pub(super) struct Source {
    /// As messages name it.
    pub(super) name: String,
    file: File,
    length: u64,
    form: Form,
}

/// How the file is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON object per line.
    Lines,
    /// Records under a header; shown as JSON objects.
    Csv {
        /// What stands between two values.
        delimiter: u8,
        /// The names in the header, in its order.
        columns: Vec<String>,
    },
}

/// Whether to go on with the next line.
pub(super) enum Go {
    On,
    Stop,
}

impl Source {
    /// A file with an object per line.
    pub(super) fn lines(path: &Path) -> Result<Self, Stop> {
        let stdin = path == Path::new("-");
        let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
        let failed = |err: io::Error| Stop::usage(format!("could not read `{name}`: {err}"));
        let file = if stdin {
            spool(&mut io::stdin().lock()).map_err(failed)?
        } else {
            let mut file = File::open(path).map_err(failed)?;
            let plain = file.metadata().map_err(failed)?.is_file();
            if plain { file } else { spool(&mut file).map_err(failed)? }
        };
        let length = file.metadata().map_err(failed)?.len();
        let mut source = Self { name, file, length, form: Form::Lines };
        let first = source.head()?;
        text::refuse_utf16(&first).map_err(|problem| {
            let problem = problem.of_file(&source.name);
            Stop::usage(format!("{}: {problem}\nnothing was submitted", source.name))
        })?;
        Ok(source)
    }

    /// A file with rows: by its name or, where that says nothing, by how it begins.
    pub(super) fn rows(path: &Path) -> Result<Self, Stop> {
        let mut source = Self::lines(path)?;
        let csv = |delimiter| Form::Csv { delimiter, columns: Vec::new() };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        source.form = match extension.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Form::Lines,
            "csv" => csv(b','),
            "tsv" => csv(b'\t'),
            _ if source.begins_with_brace()? => Form::Lines,
            _ => csv(b','),
        };
        if let Form::Csv { delimiter, .. } = source.form {
            let columns = source.header(delimiter)?;
            source.form = Form::Csv { delimiter, columns };
        }
        Ok(source)
    }

    /// The columns, where there is a header.
    pub(super) fn columns(&self) -> Option<&[String]> {
        match &self.form {
            Form::Lines => None,
            Form::Csv { columns, .. } => Some(columns),
        }
    }

    fn failed(&self, err: &io::Error) -> Stop {
        Stop::usage(format!("could not read `{}`: {err}", self.name))
    }

    fn begins_with_brace(&mut self) -> Result<bool, Stop> {
        let first = self.head()?;
        Ok(text::without_bom(&first).iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'))
    }

    /// Its first bytes.
    fn head(&mut self) -> Result<Vec<u8>, Stop> {
        let mut first = Vec::new();
        let read = self.file.seek(SeekFrom::Start(0));
        let read = read.and_then(|_at| (&self.file).take(4096).read_to_end(&mut first));
        read.map_err(|err| self.failed(&err))?;
        Ok(first)
    }

    fn header(&mut self, delimiter: u8) -> Result<Vec<String>, Stop> {
        let mut reader = self.csv(delimiter)?;
        let header = reader.headers().map_err(|err| self.csv_failed(&err))?;
        let columns: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let mut seen = std::collections::HashSet::new();
        match columns.iter().find(|name| !seen.insert(name.as_str())) {
            Some(twice) => {
                let twice = twice.escape_default();
                Err(Stop::usage(format!("{}:1: two columns are named `{twice}`", self.name)))
            }
            None => Ok(columns),
        }
    }

    fn csv(&mut self, delimiter: u8) -> Result<csv::Reader<File>, Stop> {
        let again = self.file.seek(SeekFrom::Start(0)).and_then(|_at| self.file.try_clone());
        let file = again.map_err(|err| self.failed(&err))?;
        Ok(csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file))
    }

    fn csv_failed(&self, err: &csv::Error) -> Stop {
        let line = err.position().map(csv::Position::line);
        let mut what = err.to_string();
        if let csv::ErrorKind::UnequalLengths { expected_len, len, .. } = err.kind() {
            what = format!("has {len} values; the header names {expected_len} columns");
        } else if let csv::ErrorKind::Utf8 { err, .. } = err.kind() {
            what = format!("is not UTF-8 text ({err})");
        }
        let line = line.map(|line| format!("{line}: ")).unwrap_or_default();
        Stop::usage(format!("{}:{line}{what}\nnothing was submitted", self.name))
    }

    /// Shows each line that is not blank, with its number from 1, until `see` says stop.
    pub(super) fn each(
        &mut self,
        doing: &'static str,
        see: impl FnMut(u32, &[u8]) -> Result<Go, Stop>,
    ) -> Result<(), Stop> {
        match self.form.clone() {
            Form::Lines => self.each_line(doing, see),
            Form::Csv { delimiter, columns } => self.each_record(doing, delimiter, &columns, see),
        }
    }

    fn each_line(
        &mut self,
        doing: &'static str,
        mut see: impl FnMut(u32, &[u8]) -> Result<Go, Stop>,
    ) -> Result<(), Stop> {
        let name = self.name.clone();
        let failed = |err: io::Error| Stop::usage(format!("could not read `{name}`: {err}"));
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let bar = progress(self.length, doing);
        let mut reader = BufReader::with_capacity(1 << 17, &self.file);
        let (mut line, mut number, mut read) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            let longest = MAX_TASK_BYTES + 2;
            let got = reader.by_ref().take(longest).read_until(b'\n', &mut line).map_err(failed)?;
            if got == 0 {
                break;
            }
            number += 1;
            if number == 1 {
                line = text::without_bom(&line).to_vec();
            }
            read += got as u64;
            if number % 512 == 0 {
                bar.set_position(read);
            }
            if got as u64 == longest && line.last() != Some(&b'\n') {
                return Err(Stop::usage(format!(
                    "{name}:{number}: longer than 1 MiB; nothing was submitted"
                )));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match see(number, &line)? {
                Go::On => {}
                Go::Stop => break,
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn each_record(
        &mut self,
        doing: &'static str,
        delimiter: u8,
        columns: &[String],
        mut see: impl FnMut(u32, &[u8]) -> Result<Go, Stop>,
    ) -> Result<(), Stop> {
        let mut reader = self.csv(delimiter)?;
        let bar = progress(self.length, doing);
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|err| self.csv_failed(&err))? {
            let position = record.position();
            bar.set_position(position.map_or(0, csv::Position::byte));
            let line = position.map_or(0, csv::Position::line);
            let values = columns.iter().zip(&record);
            let row: Map<String, Value> =
                values.map(|(name, value)| (name.clone(), value.into())).collect();
            let text = Value::Object(row).to_string();
            match see(u32::try_from(line).unwrap_or(u32::MAX), text.as_bytes())? {
                Go::On => {}
                Go::Stop => break,
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// `file:line:field: what is wrong`
    pub(super) fn place(&self, number: u32, bad: &BadSpec) -> String {
        let field = bad.field.as_ref().map(|field| format!("{field}:")).unwrap_or_default();
        format!("{}:{number}:{field} {}", self.name, bad.problem)
    }

    /// One mistake, and that it stops everything.
    pub(super) fn wrong(&self, number: u32, field: &str, problem: &str) -> Stop {
        let place = self.place(number, &super::bad(field, problem));
        Stop::usage(format!("{place}\nnothing was submitted"))
    }
}

/// A copy of what can be read only once, in a file that has no name any more.
fn spool(from: &mut dyn io::Read) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("queue-batch-{}", shared::id::Incarnation::new()));
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(from, &mut file)?;
    Ok(file)
}

/// A bar on stderr, if that is a terminal.
fn progress(length: u64, doing: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {percent}% ({eta})");
    let bar = ProgressBar::new(length).with_message(doing);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_default_is_fine) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str) -> Result<Vec<(u32, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let told = |stop: Stop| match stop {
            Stop::Failure(failure) => failure.text,
            Stop::PipeClosed => unreachable!("nothing is printed"),
        };
        let mut source = Source::rows(&path).map_err(told)?;
        let mut seen = Vec::new();
        let see = |number, line: &[u8]| {
            seen.push((number, String::from_utf8_lossy(line).trim().to_owned()));
            Ok(Go::On)
        };
        source.each("reading", see).map_err(told)?;
        Ok(seen)
    }

    #[test]
    fn records_are_objects_with_the_line_where_they_begin() {
        let text = "\u{feff}id,text\n1,\"two\nlines\"\n2,\"a \"\"word\"\"\"\n";
        let seen = rows("a.csv", text).unwrap();
        assert_eq!(seen[0], (2, r#"{"id":"1","text":"two\nlines"}"#.to_owned()));
        assert_eq!(seen[1], (4, r#"{"id":"2","text":"a \"word\""}"#.to_owned()));
        assert_eq!(rows("a.tsv", "a\tb\n1\t2\n").unwrap()[0].1, r#"{"a":"1","b":"2"}"#);
    }

    #[test]
    fn a_file_without_a_telling_name_is_known_by_how_it_begins() {
        assert_eq!(rows("a", " {\"a\": 1}\n").unwrap(), [(1, "{\"a\": 1}".to_owned())]);
        assert_eq!(rows("a", "a\n1\n").unwrap(), [(2, "{\"a\":\"1\"}".to_owned())]);
    }

    #[test]
    fn what_is_no_table_is_told_with_its_line() {
        let told = rows("a.csv", "a,b\n1,2\n3\n").unwrap_err();
        assert!(told.contains("a.csv:3: has 1 values; the header names 2 columns"), "{told}");
        assert!(rows("a.csv", "a,a\n").unwrap_err().contains("two columns are named `a`"));
    }
}
