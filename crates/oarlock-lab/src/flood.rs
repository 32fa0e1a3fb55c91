//! Traffic that competes for a cable: somebody who sends as much as it takes, and somebody who swallows it.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// What is sent at once, bytes.
const PART: usize = 64 * 1024;
const CONNECT: Duration = Duration::from_secs(5);

/// Arguments of the sender.
#[derive(Debug, clap::Args)]
pub struct FloodArgs {
    /// Where to send to, as ADDRESS:PORT; may be repeated
    #[arg(required = true)]
    to: Vec<SocketAddr>,
    /// Connections to each
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

/// Arguments of the receiver.
#[derive(Debug, clap::Args)]
pub struct SinkArgs {
    /// The port on every address
    port: u16,
}

/// Sends until a connection breaks or the process is ended.
pub fn flood(args: &FloodArgs) -> Result<()> {
    thread::scope(|scope| {
        let mut senders = Vec::new();
        for to in &args.to {
            for _ in 0..args.connections {
                let stream = TcpStream::connect_timeout(to, CONNECT).with_context(|| format!("connect to {to}"))?;
                senders.push(scope.spawn(move || send(stream)));
            }
        }
        println!("flooding");
        for sender in senders {
            sender.join().map_err(|_| anyhow::anyhow!("a sender ended in a panic"))?.context("send")?;
        }
        Ok(())
    })
}

fn send(mut stream: TcpStream) -> std::io::Result<()> {
    let part = vec![0x5a; PART];
    loop {
        stream.write_all(&part)?;
    }
}

/// Swallows what comes until the process is ended.
pub fn sink(args: &SinkArgs) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", args.port)).with_context(|| format!("listen on {}", args.port))?;
    println!("listening");
    loop {
        let (mut stream, _) = listener.accept().context("accept")?;
        thread::spawn(move || {
            let mut part = vec![0; PART];
            while stream.read(&mut part).is_ok_and(|length| length > 0) {}
        });
    }
}
