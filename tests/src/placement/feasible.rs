//! What can be kept at all: from which longest wait on it is impossible for anyone, and up to
//! which a plain round is enough. What lies between depends on how the work falls; there the
//! core's decisions are only measured.

use super::{SetUp, UNLOAD};

/// What a load costs beside itself: the unload before it, and the looks that ask for both.
const ASKING: u64 = UNLOAD + 2 * 1_000;

/// A longest wait that no rule stays below, in milliseconds, whatever it knows beforehand.
///
/// Let no task wait longer than `b`. The time is cut into pieces of `b + d`. What arrives in the
/// first `d` of a piece is begun within it, so each of those models is in some GPU's memory when
/// the piece begins, or its load lies wholly within the piece. GPUs hold only so much; the other
/// loads, and all the work, have to fit into what the workers have in time. Where they do not, the
/// longest wait is more than `b`.
#[must_use]
pub fn least_wait(set_up: &SetUp) -> u64 {
    const STEPS: u64 = 200;
    let most = 2 * set_up.max_wait;
    let tried = (1..=STEPS).map(|step| most * step / STEPS);
    let parts = [16, 8, 4, 2, 1];
    tried.filter(|b| parts.iter().any(|part| is_too_much(set_up, *b, *b / part))).max().unwrap_or(0)
}

fn is_too_much(set_up: &SetUp, b: u64, d: u64) -> bool {
    let Some(last) = set_up.prompts.last() else { return false };
    let work: u64 = set_up.prompts.iter().map(|prompt| prompt.runs).sum();
    let run = set_up.prompts.iter().map(|prompt| prompt.runs).max().unwrap_or(0);
    let kept = kept(set_up);
    let (mut loads, mut piece, mut asked) = (0_u64, 0, vec![false; set_up.models.len()]);
    for prompt in &set_up.prompts {
        if prompt.arrives / (b + d) != piece {
            loads += cost(set_up, &asked).saturating_sub(kept);
            (piece, asked) = (prompt.arrives / (b + d), vec![false; set_up.models.len()]);
        }
        asked[prompt.model] |= prompt.arrives % (b + d) <= d;
    }
    loads += cost(set_up, &asked).saturating_sub(if piece == 0 { 0 } else { kept });
    work + loads > set_up.workers as u64 * (last.arrives + b + run)
}

fn cost(set_up: &SetUp, asked: &[bool]) -> u64 {
    let each = set_up.models.iter().zip(asked).filter(|(_model, asked)| **asked);
    each.map(|(model, _asked)| model.load).sum()
}

/// At most so much loading is saved by what all GPUs together may hold at one time.
fn kept(set_up: &SetUp) -> u64 {
    let all = 0_u32..1 << set_up.models.len();
    let sets = all.map(|set| {
        let held = (0..set_up.models.len()).filter(|model| set >> model & 1 == 1);
        held.map(|model| &set_up.models[model])
            .fold((0, 0, 0), |(n, gib, load), model| (n + 1, gib + model.gib, load + model.load))
    });
    let fits = sets.filter(|(count, gib, _load)| match set_up.gpu_gib {
        Some(room) => *gib <= room * set_up.workers as u64,
        None => *count <= set_up.workers,
    });
    fits.map(|(_count, _gib, load)| load).max().unwrap_or(0)
}

/// Whether a plain round keeps every wait below `max_wait`: what arrives in one half of it is done
/// in the next half. Its models stand in a line, each with its load and its work, and the line is
/// cut in equal parts, one for each worker; a model that is cut is loaded by the next worker too.
/// True where that fits for each half that begins with a prompt.
#[must_use]
pub fn has_round(set_up: &SetUp) -> bool {
    let half = set_up.max_wait / 2;
    let workers = set_up.workers as u64;
    let prompts = &set_up.prompts;
    let (mut end, mut work) = (0, 0_u64);
    let mut asked = vec![0_u64; set_up.models.len()];
    for first in prompts {
        while end < prompts.len() && prompts[end].arrives <= first.arrives + half {
            work += prompts[end].runs;
            asked[prompts[end].model] += 1;
            end += 1;
        }
        let models = set_up.models.iter().zip(&asked).filter(|(_model, asked)| **asked > 0);
        let loads = models.map(|(model, _asked)| model.load + ASKING);
        let (sum, largest) = loads.fold((0, 0), |(sum, most), load| (sum + load, load.max(most)));
        if work + sum + (workers - 1) * largest > workers * half {
            return false;
        }
        work -= first.runs;
        asked[first.model] -= 1;
    }
    true
}
