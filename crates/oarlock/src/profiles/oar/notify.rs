//! Messages to the OAR server, one line per connection.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// How long one message may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(20);
/// How long a server that has just started may take to listen: measured 0.13 to 0.36 s (n = 10).
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Tells the server on this host that something has changed: it looks at its events and schedules
/// at once instead of ten seconds after its start.
pub(super) const LOOK: &str = "Qsub";

/// Sends one message to the server on this host. The connection closes at once: one that stays open
/// would keep the server from hearing others for five seconds.
pub(super) async fn send(port: u16, message: &str) -> io::Result<()> {
    let sent = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(format!("{message}\n").as_bytes()).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(DEADLINE, sent).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The same to a server that has just been started.
pub(super) async fn send_when_up(port: u16, message: &str) -> io::Result<()> {
    let start = tokio::time::Instant::now();
    loop {
        match send(port, message).await {
            Err(error) if start.elapsed() < START_DEADLINE => {
                tracing::debug!(%error, message, "the oar server does not listen yet");
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_message_is_one_line_and_the_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.unwrap();
            heard
        };
        let (sent, heard) = tokio::join!(send_when_up(port, LOOK), server);
        sent.unwrap();
        assert_eq!(heard, "Qsub\n");
    }
}
