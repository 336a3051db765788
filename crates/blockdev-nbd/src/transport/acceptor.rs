//! Lets clients in, each to a thread of its own.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::connection;
use super::listener::Listener;
use super::stream::Stream;
use super::wake::Waiter;
use crate::server::Shared;

/// Before the next try where the host has no more sockets or threads.
const PAUSE: Duration = Duration::from_millis(100);

/// Lets clients in until the server is to stop; returns when the last of them is gone.
pub(crate) fn run(shared: &Arc<Shared>, listener: Listener, waiter: &Waiter) {
    let mut clients: Vec<JoinHandle<()>> = Vec::new();
    while !shared.gate.is_closing() {
        clients.retain(|client| !client.is_finished());
        match listener.accept().and_then(|stream| client(shared, stream)) {
            Ok(client) => clients.extend(client),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if waiter.wait(&listener).is_err() {
                    thread::sleep(PAUSE);
                }
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
    // Nobody waits at a door that stays closed.
    drop(listener);
    // Who takes no replies does not keep a server from stopping.
    shared.gate.clear(shared.options.request_timeout);
    for client in clients {
        // One that panicked has ended its own connection, and nothing else.
        let _ = client.join();
    }
}

/// The thread of a client; none for one that there is no room for.
fn client(shared: &Arc<Shared>, stream: Stream) -> io::Result<Option<JoinHandle<()>>> {
    stream.prepare()?;
    let told = stream.try_clone()?;
    let patience = shared.options.handshake_timeout;
    let Some(number) = shared.gate.enter(told, patience) else {
        return Ok(None);
    };
    let its_own = Arc::clone(shared);
    let client = move || {
        let mut place = its_own.gate.take(number);
        connection::run(&its_own, &stream, &mut place);
    };
    match thread::Builder::new().spawn(client) {
        Ok(client) => Ok(Some(client)),
        Err(error) => {
            drop(shared.gate.take(number));
            Err(error)
        }
    }
}
