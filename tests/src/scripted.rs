//! A web server inside the test, which answers as a function says: for what no other stand-in can.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

/// Status and body of an answer. A text goes as it is, as a stream of events.
type Answer = (u16, Value);

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET /path`
    pub what: String,
    /// The body, where it is JSON.
    pub body: Value,
    /// The header of this name.
    pub authorization: Option<String>,
}

/// A web server that lives as long as this value.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// `answer` gets `GET /path` and the body, one request after the other.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    #[must_use]
    pub fn start(mut answer: impl FnMut(&str, &Value) -> Answer + Send + 'static) -> Self {
        Self::start_asked(move |asked| answer(&asked.what, &asked.body))
    }

    /// The same with all that was asked.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    #[must_use]
    pub fn start_asked(mut answer: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen at any port");
        let address = listener.local_addr().expect("a listener has an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // One that goes away unanswered is what some tests are about.
                let _ = stream.and_then(|stream| serve(stream, &mut answer));
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Only to wake it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the script failed");
        }
    }
}

fn serve(mut stream: TcpStream, answer: &mut impl FnMut(&Asked) -> Answer) -> std::io::Result<()> {
    let mut came = Vec::new();
    let asked = loop {
        if let Some(whole) = parse(&came) {
            break whole;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            read => came.extend_from_slice(&piece[..read]),
        }
    };
    let (status, body) = answer(&asked);
    let (kind, body) = match body {
        Value::Null => ("application/json", String::new()),
        Value::String(text) => ("text/event-stream", text),
        json @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            ("application/json", json.to_string())
        }
    };
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())
}

fn parse(came: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(came).ok()? else { return None };
    let what = format!("{} {}", request.method?, request.path?);
    let header = |name: &str| {
        let mut headers = request.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::to_owned)
    };
    let length = header("content-length").map_or(Some(0), |length| length.parse().ok());
    let body = came.get(head..head + length?)?;
    let body = serde_json::from_slice(body).unwrap_or_default();
    Some(Asked { what, body, authorization: header("authorization") })
}
