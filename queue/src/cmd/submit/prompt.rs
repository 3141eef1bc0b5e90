//! What the command line says about asking a model: the prompt, the model, and how it answers.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};
use shared::quantity::Span;
use shared::task::{Message, Spec, too_deep};
use shared::text;

use super::Stop;

/// What is said about asking a model.
#[derive(Args, Debug)]
#[command(next_help_heading = "Asking a model")]
pub(super) struct Asking {
    /// Which model; with --batch, the one for lines that name none
    #[arg(long)]
    pub(super) model: Option<String>,
    /// Ask this
    #[arg(long, value_name = "TEXT",
          conflicts_with_all = ["command", "batch", "prompt_file", "messages", "template"])]
    pub(super) prompt: Option<String>,
    /// Ask what is in this file (- for stdin)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "batch", "messages", "template"])]
    pub(super) prompt_file: Option<PathBuf>,
    /// Go on with this conversation: objects {"role", "content"}, in a list or one per line (- for stdin)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "batch", "template"])]
    pub(super) messages: Option<PathBuf>,
    /// Ask this about every row of --rows: `Summarise {title}`; {{ and }} are braces; @FILE reads it from a file
    #[arg(long, value_name = "TEXT", requires = "rows", conflicts_with_all = ["command", "batch"])]
    pub(super) template: Option<String>,
    /// The rows: a CSV file with a header, or objects one per line (- for stdin). `custom_id` or `id` names the answers
    #[arg(long, value_name = "FILE", requires = "template")]
    pub(super) rows: Option<PathBuf>,
    /// What the model is told before all else
    #[arg(long, value_name = "TEXT", conflicts_with = "batch")]
    system: Option<String>,
    /// An option of the model, as num_ctx=8192. May be repeated
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "batch")]
    option: Vec<String>,
    /// How the answer must look: json, or a file with a JSON schema
    #[arg(long, value_name = "json|FILE", conflicts_with = "batch")]
    format: Option<PathBuf>,
    /// No more tokens than this (option num_predict)
    #[arg(long, value_name = "N", conflicts_with = "batch")]
    max_tokens: Option<u32>,
    /// How freely it chooses its words (option temperature)
    #[arg(long, value_name = "X", conflicts_with = "batch", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Where chance begins (option seed)
    #[arg(long, value_name = "N", conflicts_with = "batch", allow_negative_numbers = true)]
    seed: Option<i64>,
    /// Load the model for it, at the latest, after it has waited so long
    #[arg(long, value_name = "DURATION", conflicts_with = "batch")]
    max_wait: Option<Span>,
    /// Write the answer into this file as it comes, until the task has ended; exits as `wait` does
    #[arg(long, value_name = "FILE", conflicts_with_all = ["batch", "template", "dry_run"])]
    pub(super) stream_to: Option<PathBuf>,
}

impl Asking {
    /// Whether there is one prompt to submit.
    pub(super) fn has_prompt(&self) -> bool {
        self.prompt.is_some() || self.prompt_file.is_some() || self.messages.is_some()
    }

    /// Whether anything is said that only a prompt can have.
    pub(super) fn wants_prompt(&self) -> Option<&'static str> {
        let said = [
            ("--model", self.model.is_some()),
            ("--system", self.system.is_some()),
            ("--option", !self.option.is_empty()),
            ("--format", self.format.is_some()),
            ("--max-tokens", self.max_tokens.is_some()),
            ("--temperature", self.temperature.is_some()),
            ("--seed", self.seed.is_some()),
            ("--max-wait", self.max_wait.is_some()),
        ];
        said.into_iter().find(|(_flag, said)| *said).map(|(flag, _)| flag)
    }

    /// Puts all of it into a task.
    pub(super) fn fill(self, spec: &mut Spec) -> Result<(), Stop> {
        let options = self.options()?;
        spec.options = (!options.is_empty()).then_some(options);
        spec.format = self.format.as_deref().map(format).transpose()?;
        spec.messages = self.messages.as_deref().map(messages).transpose()?;
        spec.prompt = match (self.prompt, &self.prompt_file) {
            (Some(text), _) => Some(text),
            (None, Some(path)) => Some(text_of("--prompt-file", path)?),
            (None, None) => None,
        };
        spec.model = self.model;
        spec.system = self.system;
        spec.max_wait = self.max_wait;
        Ok(())
    }

    fn options(&self) -> Result<Map<String, Value>, Stop> {
        let mut options = Map::new();
        for text in &self.option {
            let (name, value) = super::single::pair("--option", text)?;
            // `8192` is a number and `true` is true; all else is a text.
            let value = match serde_json::from_str(&value) {
                Ok(value) => value,
                Err(_not_json) => match too_deep(value.as_bytes()) {
                    Some(deep) => return Err(Stop::usage(format!("--option {name}: {deep}"))),
                    None => Value::String(value),
                },
            };
            if options.insert(name.clone(), value).is_some() {
                return Err(twice(&name));
            }
        }
        let own = [
            ("num_predict", self.max_tokens.map(Value::from)),
            ("temperature", self.temperature.map(temperature).transpose()?),
            ("seed", self.seed.map(Value::from)),
        ];
        for (name, value) in own {
            let Some(value) = value else { continue };
            if options.insert(name.to_owned(), value).is_some() {
                return Err(twice(name));
            }
        }
        Ok(options)
    }
}

fn twice(name: &str) -> Stop {
    Stop::usage(format!("the option `{}` is given twice", name.escape_default()))
}

fn temperature(value: f64) -> Result<Value, Stop> {
    if !value.is_finite() || value < 0.0 {
        return Err(Stop::usage(format!("--temperature: `{value}` is not 0 or more")));
    }
    Ok(value.into())
}

/// The text of a file, or of stdin.
pub(super) fn text_of(flag: &str, path: &Path) -> Result<String, Stop> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin().lock().read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    let path = path.display();
    read.map_err(|err| Stop::usage(format!("{flag}: could not read `{path}`: {err}")))?;
    let text = text::of(&bytes).map_err(|problem| {
        let problem = problem.of_file(&path.to_string());
        Stop::usage(format!("{flag}: `{path}` {problem}"))
    })?;
    Ok(text.to_owned())
}

fn format(path: &Path) -> Result<Value, Stop> {
    if path.as_os_str() == "json" {
        return Ok("json".into());
    }
    let text = text_of("--format", path)?;
    let path = path.display();
    let schema: Value = serde_json::from_str(&text).map_err(|err| {
        let not_json = || format!("is not JSON: {err}");
        let problem = too_deep(text.as_bytes()).unwrap_or_else(not_json);
        Stop::usage(format!("--format: `{path}` {problem}"))
    })?;
    if !schema.is_object() {
        return Err(Stop::usage(format!("--format: `{path}` holds no JSON schema (an object)")));
    }
    Ok(schema)
}

/// A list of messages, or one per line.
fn messages(path: &Path) -> Result<Vec<Message>, Stop> {
    let text = text_of("--messages", path)?;
    let path = path.display();
    let wrong = |place: String, err: serde_json::Error| {
        Stop::usage(format!("--messages: {path}{place}: {err}"))
    };
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).map_err(|err| wrong(String::new(), err));
    }
    let lines = (1..).zip(text.lines()).filter(|(_number, line)| !line.trim().is_empty());
    lines
        .map(|(number, line): (u32, &str)| {
            serde_json::from_str(line).map_err(|err| wrong(format!(":{number}"), err))
        })
        .collect()
}
