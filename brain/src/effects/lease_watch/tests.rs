//! Deaths, seen by the lease alone.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use queue::dir::presence::lease::this_process;
use queue::dir::{Privacy, Rules};
use queue::wire::lease_record::{Process, Role};
use queue::wire::ledger_line::Writer;
use shared::id::{Incarnation, TaskId};
use shared::task::{Task, TaskName, parse_spec};
use shared::time::Moment;

use super::*;

struct Fixture {
    _dir: tempfile::TempDir,
    pool: Pool,
    watchers: Watchers,
    heard: Receiver<Message>,
    _end: Sender<()>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("pool");
    let pool = Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
    let writer = Writer::new("brain".parse().unwrap());
    let ledger = Arc::new(Ledger::new(pool.layout().clone(), writer));
    let patience =
        Patience { grace: Duration::from_millis(100), give_up: Duration::from_millis(100) };
    let ((tell, heard), (end, ended)) = (unbounded(), bounded(0));
    let watchers = Watchers::new(&pool, &ledger, patience, tell, ended);
    Fixture { _dir: dir, pool, watchers, heard, _end: end }
}

impl Fixture {
    fn hear(&mut self) -> Report {
        let heard = self.heard.recv_timeout(Duration::from_secs(20)).unwrap();
        let Message::Watch(report) = heard else { panic!("only watchers talk here") };
        self.watchers.note(&report);
        report
    }

    fn lease(&self, role: Role) -> Lease {
        let worker: Name = "worker-1".parse().unwrap();
        let lease = Lease::try_take(&self.pool, &worker).unwrap().unwrap();
        let working = Record::of(worker, this_process(), Incarnation::new(), Moment::now());
        let record = Record { role, ..working };
        lease.write(&record).unwrap();
        lease
    }

    fn claimed(&self, worker: &str) -> TaskName {
        let task = Task {
            id: TaskId::new(),
            batch_id: None,
            submitted_at: Moment::now(),
            submitted_by: "ann@host".into(),
            correlation_id: "c".into(),
            spec: parse_spec(br#"{"shell": "true", "class": "cpu"}"#).unwrap(),
        };
        let name = TaskName::first(task.id);
        let dir = self.pool.layout().processing_of(&worker.parse().unwrap());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name.file_name()), task.to_bytes()).unwrap();
        name
    }

    fn life(&mut self, worker: &str) -> Option<Life> {
        self.watchers.look().unwrap().get(&worker.parse().unwrap()).copied()
    }

    fn place_of(&self, name: TaskName) -> TaskName {
        let found = queue::dir::find::places::find(self.pool.layout(), name.id).unwrap().unwrap();
        assert_eq!(found.place.state(), "pending");
        found.name
    }
}

#[test]
fn a_worker_that_dies_with_a_task_is_settled_at_once() {
    let mut fixture = fixture();
    let lease = fixture.lease(Role::Working);
    let task = fixture.claimed("worker-1");
    assert_eq!(fixture.life("worker-1"), Some(Life::Alive));
    drop(lease);
    assert!(matches!(fixture.hear(), Report::Died(death) if death.tasks == 1));
    let Report::Settled(settled) = fixture.hear() else { panic!("settled comes next") };
    assert_eq!(settled.left, Left::Nothing);
    assert!(matches!(fixture.hear(), Report::Over(_, Some(_))));
    assert_eq!((fixture.place_of(task).attempt, fixture.place_of(task).deaths), (2, 1));
    assert_eq!(fixture.life("worker-1"), Some(Life::Over));
}

#[test]
fn a_worker_that_died_before_anybody_looked_is_settled_too() {
    let mut fixture = fixture();
    drop(fixture.lease(Role::Working));
    assert_eq!(fixture.life("worker-1"), Some(Life::Unsettled));
    assert!(matches!(fixture.hear(), Report::Died(death) if death.tasks == 0));
    assert!(matches!(fixture.hear(), Report::Settled(_)));
}

#[test]
fn who_says_goodbye_has_not_died_and_a_successor_is_watched_again() {
    let mut fixture = fixture();
    let lease = fixture.lease(Role::Working);
    assert_eq!(fixture.life("worker-1"), Some(Life::Alive));
    let record = lease.record().unwrap().unwrap();
    lease.write(&Record { role: Role::Over, ..record }).unwrap();
    drop(lease);
    assert!(matches!(fixture.hear(), Report::Over(_, Some(_))));
    assert_eq!(fixture.life("worker-1"), Some(Life::Over));
    let lease = fixture.lease(Role::Working);
    assert_eq!(fixture.life("worker-1"), Some(Life::Alive));
    drop(lease);
    assert!(matches!(fixture.hear(), Report::Died(_)));
}

#[test]
fn tasks_of_a_worker_without_a_lease_file_are_settled_after_a_while() {
    let mut fixture = fixture();
    let task = fixture.claimed("ghost");
    for _look in 0..ORPHANED {
        assert_eq!(fixture.life("ghost"), Some(Life::Unsettled));
    }
    assert!(matches!(fixture.hear(), Report::Died(_)));
    assert!(matches!(fixture.hear(), Report::Settled(_)));
    assert_eq!(fixture.place_of(task).deaths, 1);
}

#[test]
fn a_task_on_another_machine_is_left_alone_and_tried_again() {
    let mut fixture = fixture();
    let lease = fixture.lease(Role::Working);
    let record = lease.record().unwrap().unwrap();
    let process = Process { boot: String::new(), ..record.process.clone() };
    lease.write(&Record { process, ..record }).unwrap();
    let task = fixture.claimed("worker-1");
    drop(lease);
    assert_eq!(fixture.life("worker-1"), Some(Life::Unsettled));
    assert!(matches!(fixture.hear(), Report::Died(_)));
    let Report::Settled(settled) = fixture.hear() else { panic!("settled comes next") };
    assert_eq!(settled.left, Left::Something);
    assert_eq!(fixture.life("worker-1"), Some(Life::Unsettled));
    let found = queue::dir::find::places::find(fixture.pool.layout(), task.id).unwrap().unwrap();
    assert_eq!(found.place.state(), "processing");
}
