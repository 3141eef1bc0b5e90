//! As much of HTTP as Ollama's clients use, with a free hand over what goes out when.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// A request, and the way back to who made it.
#[derive(Debug)]
pub(crate) struct Call {
    stream: TcpStream,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) body: Vec<u8>,
}

/// Answers one request after the other, until the client goes away or an answer was cut.
pub(crate) fn serve(stream: TcpStream, answer: impl Fn(&Call) -> io::Result<()>) {
    let mut came = Vec::new();
    // Small pieces are to go out at once.
    let _ = stream.set_nodelay(true);
    loop {
        let Ok(stream) = stream.try_clone() else { return };
        let Some(call) = read(stream, &mut came) else { return };
        if answer(&call).is_err() {
            call.cut();
            return;
        }
    }
}

fn read(mut stream: TcpStream, came: &mut Vec<u8>) -> Option<Call> {
    loop {
        if let Some((mut call, head, length)) = parse(came, &stream)
            && came.len() >= head + length
        {
            call.body = came[head..head + length].to_vec();
            came.drain(..head + length);
            return Some(call);
        }
        let mut piece = [0; 16 * 1024];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => came.extend_from_slice(&piece[..read]),
        }
    }
}

/// The head, how long it is, and how long the body will be.
fn parse(came: &[u8], stream: &TcpStream) -> Option<(Call, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(came).ok()? else { return None };
    let (method, path) = (request.method?.to_owned(), request.path?.to_owned());
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let host = header("host").unwrap_or_default();
    let stream = stream.try_clone().ok()?;
    Some((Call { stream, method, path, host, body: Vec::new() }, head, length))
}

impl Call {
    /// A whole answer.
    pub(crate) fn send(&self, status: u16, kind: &str, body: &[u8]) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            phrase(status),
            body.len()
        );
        let body = if self.method == "HEAD" { &[] } else { body };
        (&self.stream).write_all(&[head.as_bytes(), body].concat())
    }

    pub(crate) fn json(&self, status: u16, body: &Value) -> io::Result<()> {
        self.send(status, "application/json; charset=utf-8", body.to_string().as_bytes())
    }

    /// The head of an answer that comes in pieces.
    pub(crate) fn begin(&self, kind: &str) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        (&self.stream).write_all(head.as_bytes())
    }

    pub(crate) fn piece(&self, bytes: &[u8]) -> io::Result<()> {
        let size = format!("{:x}\r\n", bytes.len());
        (&self.stream).write_all(&[size.as_bytes(), bytes, b"\r\n"].concat())
    }

    /// The regular end of an answer in pieces.
    pub(crate) fn end(&self) -> io::Result<()> {
        (&self.stream).write_all(b"0\r\n\r\n")
    }

    /// Ends the connection in the middle of it all.
    pub(crate) fn cut(&self) -> io::Error {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        io::Error::other("cut")
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_gone(&self) -> bool {
        let _ = self.stream.set_nonblocking(true);
        let peeked = self.stream.peek(&mut [0]);
        let _ = self.stream.set_nonblocking(false);
        match peeked {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
