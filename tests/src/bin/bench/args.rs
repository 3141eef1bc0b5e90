//! The command line: words only, nothing is opened here.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "usage: bench [--quick] [--json FILE] [--plot FILE] [--dir DIR] \
     [--only spawn,submit,wake,claim,idle,large,llm,many,placement] [PART…]";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Spawn,
    Submit,
    Wake,
    Claim,
    Idle,
    Large,
    Llm,
    Many,
    Placement,
}

/// How long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// About a minute, backlogs of 1 k and 10 k.
    Quick,
    /// All of it, up to a million tasks.
    Full,
}

#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) size: Size,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plot: Option<PathBuf>,
    pub(crate) dir: PathBuf,
    /// Empty for all.
    pub(crate) only: Vec<Part>,
}

impl Args {
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let dir = std::env::temp_dir();
        let mut args = Self { size: Size::Full, json: None, plot: None, dir, only: vec![] };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} takes a value"));
            match word.as_str() {
                "--quick" => args.size = Size::Quick,
                "--json" => args.json = Some(value()?.into()),
                "--plot" => args.plot = Some(value()?.into()),
                "--dir" => args.dir = value()?.into(),
                "--only" => args.only = value()?.split(',').map(part).collect::<Result<_, _>>()?,
                word if !word.starts_with('-') => args.only.push(part(word)?),
                other => return Err(format!("`{other}` is not understood")),
            }
        }
        Ok(args)
    }

    /// One value or the other.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        match self.size {
            Size::Quick => quick,
            Size::Full => full,
        }
    }
}

fn part(word: &str) -> Result<Part, String> {
    Ok(match word {
        "spawn" => Part::Spawn,
        "submit" => Part::Submit,
        "wake" => Part::Wake,
        "claim" => Part::Claim,
        "idle" => Part::Idle,
        "large" => Part::Large,
        "llm" => Part::Llm,
        "many" => Part::Many,
        "placement" => Part::Placement,
        other => return Err(format!("there is no part `{other}`")),
    })
}

impl Args {
    /// Where the curves go: beside the JSON where nothing else was said.
    pub(crate) fn plot_file(&self) -> Option<PathBuf> {
        self.plot.clone().or_else(|| self.json.as_ref().map(|json| json.with_extension("svg")))
    }
}
