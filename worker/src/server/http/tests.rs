//! Calls on connections that are kept, with a server that says when each piece of an answer comes.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::server::lines::Sent;

const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const DONE: &str = "e\r\ndata: [DONE]\n\n\r\n";
const END: &str = "0\r\n\r\n";

fn begin<'a>(client: &'a Client, cancel: &'a Cancel) -> Reply<'a> {
    let patience = Duration::from_secs(60);
    client.call(Call { path: "/", body: None, patience, cancel }).unwrap()
}

fn finish(mut reply: Reply<'_>) {
    let mut lines = reply.lines();
    assert_eq!(lines.next_event().unwrap(), Sent::Done);
    reply.over(lines);
}

fn ask(client: &Client) {
    finish(begin(client, &Cancel::default()));
}

fn listening() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::local(listener.local_addr().unwrap().port());
    (listener, Client::new(address, Limits::default()))
}

/// A second call reads the end of the first one's answer, so a third one gets the first one's
/// connection; then the second one is given up.
#[test]
fn who_gives_a_call_up_does_not_end_another_one_on_a_connection_that_it_had_read() {
    let (listener, client) = listening();
    let (second, third) = (Cancel::default(), Cancel::default());
    let (tell, told) = crossbeam_channel::bounded(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut one, _) = listener.accept().unwrap();
            receive(&mut one);
            send(&mut one, HEAD);
            send(&mut one, DONE);
            let (mut other, _) = listener.accept().unwrap();
            receive(&mut other);
            send(&mut one, END);
            send(&mut other, HEAD);
            receive(&mut one);
            send(&mut one, HEAD);
            told.recv().unwrap();
            send(&mut one, DONE);
            send(&mut one, END);
        });
        ask(&client);
        let _second = begin(&client, &second);
        let third = begin(&client, &third);
        second.give_up();
        tell.send(()).unwrap();
        finish(third);
    });
    assert!(!second.ended(), "its connections are of no use any more");
}

fn receive(from: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
}

fn send(to: &mut TcpStream, text: &str) {
    to.write_all(text.as_bytes()).unwrap();
}

/// Here the end of each answer comes only after the next request.
#[test]
fn nobody_waits_for_the_end_of_an_answer_and_its_connection_serves_again() {
    let (listener, client) = listening();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut first, _) = listener.accept().unwrap();
            receive(&mut first);
            send(&mut first, &(HEAD.to_owned() + DONE));
            let (mut second, _) = listener.accept().unwrap();
            receive(&mut second);
            for _ in 0..10 {
                send(&mut first, END);
                send(&mut second, &(HEAD.to_owned() + DONE));
                receive(&mut first);
                std::mem::swap(&mut first, &mut second);
            }
            send(&mut second, &(HEAD.to_owned() + DONE));
        });
        (0..12).for_each(|_| ask(&client));
    });
}
