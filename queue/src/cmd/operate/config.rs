//! `queue config`: the settings, and where each came from.

use clap::Args;
use serde_json::json;
use shared::exit;
use shared::settings::Settings;

use crate::cmd::out::Tone;
use crate::cmd::{App, Stop, warn};

/// Show the settings, as they would be written in pool.toml
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// Say where each value came from and what it does
    #[arg(long)]
    explain: bool,
}

impl Config {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let resolved = app.resolve()?;
        warn_of_variables(&resolved.settings);
        let rows = resolved.settings.explain();
        if app.json() {
            let fields = json!({
                "pool": resolved.root, "pool_origin": resolved.origin, "settings": rows,
            });
            app.out.json("config", &fields)?;
            return Ok(exit::OK);
        }
        let root = resolved.root.display();
        app.out.line(format!("# pool: {root} ({})", resolved.origin))?;
        for row in rows {
            if self.explain {
                let about = app.out.paint(Tone::Faint, &format!("# {}", row.about));
                app.out.line("")?;
                app.out.line(about)?;
                app.out.line(format!("{}  # {}", row.line, row.origin))?;
            } else {
                app.out.line(row.line)?;
            }
        }
        Ok(exit::OK)
    }
}

/// Variables that look like ours and that nothing reads. Said where people look into settings, and
/// not by every command in a script.
pub(in crate::cmd) fn warn_of_variables(settings: &Settings) {
    settings.unknown_variables_here().iter().for_each(|unknown| warn(unknown.to_string()));
}
