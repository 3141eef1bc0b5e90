//! Who waits for whom inside a batch: names become ids, and circles are found before anything is
//! submitted. Pure: no file, no pool.

use std::collections::{HashMap, HashSet, VecDeque};

use shared::id::TaskId;
use shared::task::{After, On};

/// What is wrong, and with which task of the batch (its place in the file, from 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Which task.
    pub(super) index: usize,
    /// What is wrong with its `after`.
    pub(super) text: String,
}

/// The dependencies of one task, as they were written.
pub(super) type Links = Vec<(usize, Vec<After>)>;

/// The words in `after` that may be names: all of them.
pub(super) fn wanted(links: &Links) -> HashSet<String> {
    links.iter().flat_map(|(_task, after)| after).map(|after| after.id().to_owned()).collect()
}

/// Replaces names by ids. `names` are the tasks of the batch that have a wanted name; `known`
/// finds tasks outside the batch.
pub(super) fn resolve(
    links: Links,
    names: &HashMap<String, Vec<usize>>,
    ids: &[TaskId],
    known: impl Fn(&str) -> Result<TaskId, String>,
) -> Result<HashMap<usize, Vec<After>>, Problem> {
    let mut edges: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut resolved = HashMap::new();
    for (index, afters) in links {
        let mut found = Vec::with_capacity(afters.len());
        for after in afters {
            let problem = |text| Problem { index, text };
            let id = match names.get(after.id()).map(Vec::as_slice) {
                Some([other]) => {
                    edges.entry(index).or_default().push(*other);
                    ids[*other]
                }
                Some(several) if several.len() > 1 => {
                    let name = after.id().escape_default();
                    let text =
                        format!("`{name}` is the name of {} tasks of this batch", several.len());
                    return Err(problem(text));
                }
                Some(_) | None => known(after.id()).map_err(problem)?,
            };
            found.push(with_id(&after, id));
        }
        resolved.insert(index, found);
    }
    match circle(&edges) {
        Some(index) => {
            Err(Problem { index, text: "waits for itself, directly or through others".to_owned() })
        }
        None => Ok(resolved),
    }
}

fn with_id(after: &After, id: TaskId) -> After {
    match after.on() {
        On::Success => After::Success(id.to_string()),
        on @ (On::Failure | On::Any) => After::Ended { id: id.to_string(), on },
    }
}

/// A task that waits for itself, if there is one: the first in the file that is on a circle.
fn circle(edges: &HashMap<usize, Vec<usize>>) -> Option<usize> {
    // Take away, again and again, whoever waits for nobody that is left.
    let mut open: HashMap<usize, usize> = HashMap::new();
    let mut waiters: HashMap<usize, Vec<usize>> = HashMap::new();
    for (task, needs) in edges {
        *open.entry(*task).or_default() += needs.len();
        for need in needs {
            open.entry(*need).or_default();
            waiters.entry(*need).or_default().push(*task);
        }
    }
    let mut free: VecDeque<usize> =
        open.iter().filter(|(_task, count)| **count == 0).map(|(task, _count)| *task).collect();
    while let Some(task) = free.pop_front() {
        open.remove(&task);
        for waiter in waiters.get(&task).into_iter().flatten() {
            if let Some(count) = open.get_mut(waiter) {
                *count -= 1;
                if *count == 0 {
                    free.push_back(*waiter);
                }
            }
        }
    }
    // What is left is on a circle or waits for one; whoever can be reached from itself is on one.
    let mut left: Vec<usize> = open.into_keys().collect();
    left.sort_unstable();
    left.into_iter().find(|task| reaches(edges, *task))
}

fn reaches(edges: &HashMap<usize, Vec<usize>>, task: usize) -> bool {
    let (mut seen, mut next) = (HashSet::new(), vec![task]);
    while let Some(at) = next.pop() {
        for need in edges.get(&at).into_iter().flatten() {
            if *need == task {
                return true;
            }
            if seen.insert(*need) {
                next.push(*need);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(list: &[(usize, &[&str])]) -> Links {
        let after = |id: &&str| After::Success((*id).to_owned());
        list.iter().map(|(task, afters)| (*task, afters.iter().map(after).collect())).collect()
    }

    fn names(list: &[&str]) -> HashMap<String, Vec<usize>> {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, name) in list.iter().enumerate() {
            names.entry((*name).to_owned()).or_default().push(index);
        }
        names
    }

    fn run(list: &[&str], wait: &[(usize, &[&str])]) -> Result<Vec<(usize, String)>, Problem> {
        let ids: Vec<TaskId> = list.iter().map(|_| TaskId::new()).collect();
        let unknown = |id: &str| Err(format!("no task `{id}`"));
        let resolved = resolve(links(wait), &names(list), &ids, unknown)?;
        let place = |id: &str| ids.iter().position(|known| known.to_string() == id).unwrap();
        let mut found: Vec<_> = resolved
            .iter()
            .flat_map(|(task, afters)| {
                afters.iter().map(|a| (*task, list[place(a.id())].to_owned()))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    #[test]
    fn names_become_ids_also_of_tasks_that_come_later() {
        let found = run(&["a", "b", "c"], &[(0, &["c"]), (1, &["a", "c"])]).unwrap();
        assert_eq!(found, [(0, "c".into()), (1, "a".into()), (1, "c".into())]);
    }

    #[test]
    fn circles_are_found_wherever_they_are() {
        assert_eq!(run(&["a"], &[(0, &["a"])]).unwrap_err().index, 0);
        let wait: &[(usize, &[&str])] = &[(0, &["b"]), (1, &["c"]), (2, &["d"]), (3, &["b"])];
        let problem = run(&["a", "b", "c", "d"], wait).unwrap_err();
        assert_eq!(problem.index, 1, "a only waits for the circle");
        let diamond: &[(usize, &[&str])] = &[(1, &["a"]), (2, &["a"]), (3, &["b", "c"])];
        assert!(run(&["a", "b", "c", "d"], diamond).is_ok());
    }

    #[test]
    fn a_name_must_be_known_and_mean_one_task() {
        assert!(run(&["a", "a", "b"], &[(2, &["a"])]).unwrap_err().text.contains("2 tasks"));
        assert_eq!(run(&["a"], &[(0, &["x"])]).unwrap_err().text, "no task `x`");
    }
}
