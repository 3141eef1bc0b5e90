//! What holds up the pool: for each lane with pending tasks, why its first task is not taken.

use shared::quantity::counted;
use shared::reason::{Reason, in_order};

use super::{Explanation, Look, Subject, Word, task};
use crate::Error;
use crate::dir::disk::listing::PassedOver;
use crate::dir::find::places;

/// The pool as a whole.
pub fn why_pool(look: &Look<'_>) -> Result<Explanation, Error> {
    let subject = Subject { kind: "pool", id: look.pool.root().display().to_string() };
    let (mut reasons, mut blocked, mut impossible, mut claimable) = (Vec::new(), 0, 0, 0);
    let heads = look.view.counts.lanes.iter().filter_map(|lane| lane.head).collect();
    let heads = places::find_some(look.pool.layout(), &heads, &mut PassedOver::default())?;
    for lane in &look.view.counts.lanes {
        let Some(head) = lane.head.and_then(|head| heads.get(&head)) else { continue };
        let Some(verdict) = task::why_found(look, head)? else { continue };
        match verdict.verdict {
            Word::Blocked => blocked += lane.pending,
            Word::Impossible => impossible += lane.pending,
            // It was taken while we looked.
            Word::Running | Word::Gone | Word::Claimable | Word::Idle | Word::Busy => {
                claimable += lane.pending;
            }
        }
        let about = |reason: Reason| Reason {
            lane: Some(lane.lane.to_string()),
            count: Some(lane.pending),
            ..reason
        };
        reasons.extend(verdict.reasons.into_iter().map(about));
    }
    for warning in look.view.own_warnings() {
        if !reasons.iter().any(|r| r.code == warning.code && r.worker == warning.worker) {
            reasons.push(warning);
        }
    }
    let counts = &look.view.counts;
    let pending = |number: u64| counted(number, "pending task");
    let (word, text) = if blocked + impossible + claimable == 0 {
        match (counts.processing, counts.unlisted.first()) {
            (_, Some(dir)) => {
                let path = &dir.path;
                (Word::Blocked, format!("no task is known to wait; what is in `{path}` is unknown"))
            }
            (0, None) => (Word::Idle, "no task is pending and none runs".to_owned()),
            (running, None) => (Word::Busy, format!("no task is pending, {running} running")),
        }
    } else if claimable > 0 {
        (Word::Claimable, format!("{} can be taken now", pending(claimable)))
    } else if blocked > 0 && counts.processing > 0 {
        (Word::Busy, format!("{} running, {} behind them", counts.processing, pending(blocked)))
    } else if blocked > 0 {
        (Word::Blocked, format!("{} cannot be taken now", pending(blocked)))
    } else {
        (Word::Impossible, format!("{} can never run here", pending(impossible)))
    };
    let never = if impossible > 0 && word != Word::Impossible {
        format!("; {impossible} can never run here")
    } else {
        String::new()
    };
    Ok(look.verdict(subject, word, text + &never, in_order(reasons)))
}
