//! The asking side.

use super::{Answer, MAX_ANSWER, Request, view::Exported};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error(
        "no server answers at {path}: {error}; is `restante serve` running with this configuration?"
    )]
    NotReachable {
        /// Socket.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The socket exists and is not ours to open.
    #[error("{path}: {error}; run this as the user that runs the server")]
    NotPermitted {
        /// Socket.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It listens and talks something else.
    #[error("the server's answer makes no sense: {0}")]
    Garbled(String),
}

/// Asks one question; waits at most a minute for its answer.
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket).map_err(|error| refused(socket, error))?;
    exchange(stream, request).map_err(|error| refused(socket, error))?.map_err(ClientError::Garbled)
}

fn exchange(mut stream: UnixStream, request: &Request) -> std::io::Result<Result<Answer, String>> {
    send(&mut stream, request)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer).map_err(|e| e.to_string()))
}

/// Asks for something that follows its answer, and writes it to `sink`. An answer that says no comes
/// alone.
///
/// # Errors
/// What [`ask`] says; also [`ClientError::Garbled`] where less came than the answer said.
pub fn fetch(
    socket: &Path,
    request: &Request,
    sink: &mut dyn Write,
) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket).map_err(|error| refused(socket, error))?;
    let fetched = fetched(stream, request, sink).map_err(|error| refused(socket, error))?;
    fetched.map_err(ClientError::Garbled)
}

fn fetched(
    mut stream: UnixStream,
    request: &Request,
    sink: &mut dyn Write,
) -> std::io::Result<Result<Answer, String>> {
    send(&mut stream, request)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.by_ref().take(MAX_ANSWER).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(Answer::Ok(value)) => value,
        Ok(no @ Answer::No { .. }) => return Ok(Ok(no)),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let size = match serde_json::from_value::<Exported>(answer.clone()) {
        Ok(Exported { size }) => size,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let came = std::io::copy(&mut reader.take(size), sink)?;
    if came < size {
        return Ok(Err(format!("it broke off after {came} of {size} bytes")));
    }
    Ok(Ok(Answer::Ok(answer)))
}

fn send(stream: &mut UnixStream, request: &Request) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn refused(socket: &Path, error: std::io::Error) -> ClientError {
    let path = socket.display().to_string();
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        ClientError::NotPermitted { path, error }
    } else {
        ClientError::NotReachable { path, error }
    }
}
