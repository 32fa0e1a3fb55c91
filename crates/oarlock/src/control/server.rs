//! The agent's end: a task that turns connections into calls on a channel.

use super::frame::{self, FrameError, LENGTH_BYTES, REQUEST_MAX_BYTES, RESPONSE_MAX_BYTES};
use super::peer::{Operators, Peer};
use super::protocol::{Request, Response};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// A client that does not ask or does not read within this is dropped.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);
/// Connections of operators at a time.
const OPERATORS_MAX: usize = 16;
/// Connections of others at a time; kept apart so that they cannot lock the operators out.
const OTHERS_MAX: usize = 16;
/// Answers that may wait for a slow reader: all of an agent's events at once.
pub const ANSWERS_WAITING_MAX: usize = 4096;
/// After an error of `accept` (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request that is waiting for its answer.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks; already known to be allowed to.
    pub peer: Peer,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Where an answer goes. Dropped without an answer, the client is told of an internal error.
#[derive(Debug)]
pub struct Reply(mpsc::Sender<Response>);

impl Reply {
    /// Answers, and that is all.
    pub fn send(self, response: Response) {
        // Room is there for the first answer; an asker who has left needs none.
        let _ = self.0.try_send(response);
    }

    /// Sends one of several answers; false when the asker has left or does not keep up, and the rest
    /// can be spared. Dropping the reply ends the connection.
    pub fn send_part(&self, response: Response) -> bool {
        self.0.try_send(response).is_ok()
    }

    /// True once the asker has left.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// The socket, bound.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    operators: Operators,
    path: PathBuf,
}

impl ControlServer {
    /// Takes the socket over from an agent before us: the path is replaced in one step, so that a
    /// client finds either the old or the new one. Only one agent runs at a time (its lock sees to that).
    pub fn bind(path: &Path, operators: Operators) -> io::Result<ControlServer> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        // Whoever is on the machine may look; what may be changed by whom is decided per request.
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o666))?;
        std::fs::rename(&new, path)?;
        Ok(ControlServer { listener, operators, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until the receiver of the calls is gone.
    pub async fn run(self, calls: mpsc::Sender<Call>) {
        let operator_places = Arc::new(Semaphore::new(OPERATORS_MAX));
        let other_places = Arc::new(Semaphore::new(OTHERS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = calls.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("control socket: cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(peer) = Peer::of(&stream) else { continue };
            let operator = self.operators.include(&peer);
            let places = if operator { &operator_places } else { &other_places };
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                tracing::warn!("control socket: too many connections, {peer} is refused");
                continue;
            };
            let calls = calls.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, peer, operator, calls).await {
                    tracing::debug!("control socket: {error}");
                }
                drop(place);
            });
        }
    }
}

/// One connection: one request, one answer or many.
async fn serve(mut stream: UnixStream, peer: Peer, operator: bool, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let request = match timeout(CLIENT_DEADLINE, read_request(&mut stream)).await {
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(Err(error))) => {
            let problem = format!("the agent does not understand the request: {error}");
            let hint = "\n  hint: are command and agent of the same version? restart the agent after an upgrade";
            return write(&mut stream, &Response::Usage { problems: vec![problem + hint] }).await;
        }
        Ok(Ok(Ok(request))) => request,
    };
    if request.changes() && !operator {
        let response = Response::Negative {
            reason: format!("user {} may look, but not change anything", peer.uid),
            hint: Some("run it as root or as a member of the group \"oarlock\"".to_owned()),
        };
        return write(&mut stream, &response).await;
    }
    let many = matches!(request, Request::Events { .. });
    let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
    let call = Call { request, peer, reply: Reply(sender) };
    if calls.send(call).await.is_err() {
        return write(&mut stream, &Response::Internal { reason: "the agent is stopping".to_owned() }).await;
    }
    let mut answered = false;
    let mut byte = [0];
    loop {
        let answer = tokio::select! {
            answer = answers.recv() => answer,
            // The client says nothing more; readable means it has left.
            _ = stream.read(&mut byte) => return Ok(()),
        };
        match answer {
            Some(answer) => write(&mut stream, &answer).await?,
            None if answered => return Ok(()),
            None => {
                let reason = "the agent dropped the request".to_owned();
                return write(&mut stream, &Response::Internal { reason }).await;
            }
        }
        answered = true;
        if !many {
            return Ok(());
        }
    }
}

async fn read_request(stream: &mut UnixStream) -> io::Result<Result<Request, FrameError>> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let length = match frame::body_length(length, REQUEST_MAX_BYTES) {
        Ok(length) => length,
        Err(error) => return Ok(Err(error)),
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(frame::decode(&body))
}

async fn write(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let bytes = match frame::encode(response, RESPONSE_MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => {
            let reason = format!("the answer cannot be sent: {error}");
            frame::encode(&Response::Internal { reason }, RESPONSE_MAX_BYTES).map_err(io::Error::other)?
        }
    };
    timeout(CLIENT_DEADLINE, stream.write_all(&bytes)).await?
}
