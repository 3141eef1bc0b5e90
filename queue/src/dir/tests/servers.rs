//! The model server of a dead worker: no task waits for its end, and it is not forgotten where it
//! could not be ended.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::io::Errno;
use shared::id::TaskId;

use crate::dir::fixture::{claim, cursor, ledger, name, pool_at, record, scratch, state, submit};
use crate::dir::presence::lease::{Lease, this_process};
use crate::dir::recover::settle::{Patience, Settled, Settler};
use crate::dir::{Pool, fault};
use crate::fence::{SERVER_MARK, server_mark};
use crate::wire::lease_record::{Process, Record, Role};

const TASK: &str = r#"{"shell": "true"}"#;

/// Dies while it has a task and a model server.
fn dies(pool: &Pool) -> (Lease, TaskId) {
    let task = submit(pool, TASK);
    let lease = Lease::try_take(pool, &name("worker-1")).unwrap().unwrap();
    let mut record = record(&lease, &ledger(pool, "worker-1"));
    record.server = Some(server_mark(pool.root(), &name("worker-1")));
    lease.write(&record).unwrap();
    let claimed = claim(&mut cursor(pool, "worker-1")).unwrap();
    assert_eq!(claimed.name().id, task);
    (lease, task)
}

fn settle(pool: &Pool, lease: &Lease) -> Settled {
    let patience = Patience { grace: Duration::ZERO, give_up: Duration::ZERO };
    let ledger = ledger(pool, "brain");
    Settler::new(pool, &ledger, patience).settle(lease).unwrap()
}

fn serve(pool: &Pool) -> Child {
    let mut server = Command::new("sleep");
    server.arg("600").env(SERVER_MARK, server_mark(pool.root(), &name("worker-1")));
    server.process_group(0).spawn().unwrap()
}

#[test]
fn tasks_are_put_back_though_their_server_cannot_be_looked_for() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let (lease, task) = dies(&pool);
    fault::fail_where("end server", Errno::IO);
    let settled = settle(&pool, &lease);
    assert_eq!(state(&pool, task).unwrap().0, "pending");
    assert!(settled.servers.is_err() && !settled.is_complete());
    let kept = lease.record().unwrap().unwrap();
    assert!(!kept.role.is_over() && kept.server.is_some(), "{kept:?}");
    // Once more, and it is found.
    let mut servers = [serve(&pool), serve(&pool), serve(&pool)];
    let settled = settle(&pool, &lease);
    servers.iter_mut().for_each(|server| assert!(!server.wait().unwrap().success()));
    assert_eq!(settled.servers.unwrap(), 3);
    let over = lease.record().unwrap().unwrap();
    assert!(matches!(over.role, Role::Settled(_)) && over.server.is_none(), "{over:?}");
}

#[test]
fn a_server_on_another_machine_is_not_forgotten() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let elsewhere = Process { boot: String::new(), ..this_process() };
    let before = Process { boot: "before".into(), ..this_process() };
    for (process, known) in [(elsewhere, true), (before, false)] {
        let lease = Lease::try_take(&pool, &name("worker-2")).unwrap().unwrap();
        let mark = server_mark(pool.root(), &name("worker-2"));
        let record = record(&lease, &ledger(&pool, "worker-2"));
        lease.write(&Record { process, server: Some(mark.clone()), ..record }).unwrap();
        assert!(settle(&pool, &lease).is_complete());
        let over = lease.record().unwrap().unwrap();
        assert!(over.role.is_over());
        assert_eq!(over.server, known.then_some(mark));
    }
}
