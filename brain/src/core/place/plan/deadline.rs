//! Deadlines: which work must be begun now, so that no task waits longer than its `max_wait`, one
//! load and one run.
//!
//! What can be kept at all: in every `max_wait` each model that is asked has to be there once. So
//! `W` workers of which the part `r` of the time is work can turn over loads of
//! `(1 - r) * W * max_wait` seconds, and all models that do not stay in memory have to fit into
//! that: with less, nobody keeps the bound (`tests::placement::least_wait` says from where on,
//! for one instance). With twice as much a plain round over all models keeps it: what arrives in
//! one half of `max_wait` is done in the next half (`tests::placement::has_round`). In between it
//! depends on how the work falls.
//!
//! The rule is earliest deadline first over models, and a visit lasts until nothing waits: that
//! wastes no load, and a round shrinks by itself where there is little to do. Only a visit that is
//! longer than somebody's patience is cut short, and only
//! - when the work, lined up by deadline on all places from now on, would begin too late in part
//!   (looking ahead: deadlines that fall together are begun one after the other in time), and
//! - where that helps: with the place taken, everything else still begins in time; or the visit
//!   has lasted so long that loads stay a small part of the time.
//!
//! Cutting visits where nothing can be kept any more adds loads and makes all wait longer.

use super::Planner;
use crate::core::place::world::{Demand, Place, Standing, World};

/// What is lined up is begun with the next look, not in this moment, in seconds.
const SOON: f64 = 1.0;
/// A visit of so many times the loads that ending it costs is a long one.
pub(in crate::core::place) const LONG: f64 = 10.0;

/// Work that waits for a place, in seconds from now.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// When it is to begin at the latest.
    latest: f64,
    /// For how long it needs the place.
    takes: f64,
}

/// What is late when the places, which are ready after so many seconds, take what waits in the
/// order of deadlines: each turn's index, in that order, and by how much it is late (not if below
/// zero).
fn line_up(mut ready: Vec<f64>, turns: &[Turn]) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..turns.len()).collect();
    order.sort_by(|a, b| turns[*a].latest.total_cmp(&turns[*b].latest));
    let lateness = order.into_iter().map(|index| {
        let turn = turns[index];
        let Some(first) = ready.iter_mut().min_by(|a, b| a.total_cmp(b)) else {
            return (index, f64::INFINITY);
        };
        let late = *first - turn.latest;
        *first += turn.takes;
        (index, late)
    });
    lateness.collect()
}

/// By demand, what must be begun now: what is overdue, and what comes no later in the line than
/// something that would be late if the line began with the next look. Nothing is due before half
/// of its patience is over, or batches would shrink to nothing where there is too much to do.
pub(in crate::core::place) fn due(world: &World, serving: &[u64]) -> Vec<bool> {
    let mut due: Vec<bool> = world.demands.iter().map(|demand| demand.slack <= 0.0).collect();
    let waiting: Vec<usize> = (0..serving.len()).filter(|d| serving[*d] == 0).collect();
    let turns: Vec<Turn> = waiting.iter().map(|d| shortest(&world.demands[*d])).collect();
    let late = line_up(usable(world).map(|_place| SOON).collect(), &turns);
    let last = late.iter().rposition(|(_turn, late)| *late >= 0.0);
    for (turn, _late) in &late[..last.map_or(0, |last| last + 1)] {
        let demand = &world.demands[waiting[*turn]];
        due[waiting[*turn]] = demand.slack <= demand.patience() / 2.0;
    }
    due
}

fn usable(world: &World) -> impl Iterator<Item = &Place> {
    world.places.iter().filter(|place| place.is_usable())
}

/// The shortest visit that is worth its load; it is loaded when its first task should begin.
fn shortest(demand: &Demand) -> Turn {
    let latest = demand.slack - demand.load;
    Turn { latest, takes: demand.load + demand.work().min(demand.load) }
}

/// A visit that does all that waits, begun in time for the bound.
fn whole(demand: &Demand) -> Turn {
    Turn { latest: demand.slack, takes: demand.load + demand.work() }
}

impl Planner<'_> {
    /// Whether all other work begins in time when `ours` takes this place away from `theirs`, and
    /// all visits last until nothing waits.
    pub(in crate::core::place) fn is_kept(
        &self,
        place: &Place,
        ours: usize,
        theirs: usize,
    ) -> bool {
        let demands = &self.world.demands;
        let ready = usable(self.world).map(|other| match std::ptr::eq(other, place) {
            true => whole(&demands[ours]).takes,
            false => self.runs_out(other),
        });
        let waits = |d: &usize| *d != ours && (self.serving[*d] == 0 || *d == theirs);
        let turns: Vec<Turn> =
            (0..demands.len()).filter(waits).map(|d| whole(&demands[d])).collect();
        line_up(ready.collect(), &turns).iter().all(|(_turn, late)| *late <= 0.0)
    }

    /// When this place has done what waits for what it holds, or will hold.
    fn runs_out(&self, place: &Place) -> f64 {
        let moving = matches!(place.standing, Standing::Moving(_));
        let served = (0..self.serving.len()).filter(|d| place.serves(&self.world.demands[*d].kind));
        let each = served.map(|demand| {
            let load = if moving { self.world.demands[demand].load } else { 0.0 };
            self.end(demand) + load
        });
        each.sum()
    }

    /// Whether those that serve it need more than half of its patience for what waits.
    pub(in crate::core::place) fn is_behind(&self, demand: usize) -> bool {
        let wanted = &self.world.demands[demand];
        self.open[demand] > 0 && self.end(demand) + wanted.load > wanted.patience() / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(places: &[f64], turns: &[(f64, f64)]) -> Vec<usize> {
        let turns: Vec<Turn> =
            turns.iter().map(|(latest, takes)| Turn { latest: *latest, takes: *takes }).collect();
        let lined_up = line_up(places.to_vec(), &turns);
        lined_up.into_iter().filter(|(_turn, late)| *late > 0.0).map(|(turn, _)| turn).collect()
    }

    #[test]
    fn deadlines_that_fall_together_are_late_for_those_at_the_end_of_the_line() {
        let together = [(30.0, 20.0), (31.0, 20.0), (32.0, 20.0)];
        assert_eq!(late(&[0.0], &together), [2]);
        assert_eq!(late(&[0.0, 0.0], &together), Vec::<usize>::new());
        assert_eq!(late(&[15.0], &together), [1, 2]);
        assert_eq!(late(&[], &together), [0, 1, 2], "nobody is there");
        assert_eq!(late(&[0.0], &[(50.0, 20.0), (10.0, 30.0)]), Vec::<usize>::new());
    }
}
