//! Threads of the portal's own, of a lower priority than those of mail.
//!
//! A TLS handshake, a page and a password cost strangers little and this machine much. Where the
//! processor is short, what the portal does takes what intake and relay leave, and a tenth at least.
//! Its blocking work (passwords, pictures) has a pool apart from the one of the store's files.

use std::io;
use tokio::runtime::{Builder, Handle, Runtime};

/// Added to the niceness of each thread: on Linux a weight of a tenth (`sched(7)`).
const NICENESS: i32 = 10;

/// A runtime for the portal. It ends with this value, without waiting.
#[derive(Debug)]
pub(super) struct PortalThreads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl PortalThreads {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("portal")
            .enable_all()
            // On Linux this is the calling thread's alone (`nice(2)`); lowering is always permitted.
            .on_thread_start(|| {
                if let Err(error) = rustix::process::nice(NICENESS) {
                    tracing::warn!(%error, "a thread of the portal keeps the priority of mail");
                }
            })
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for PortalThreads {
    fn drop(&mut self) {
        // A plain drop would block, which a thread of another runtime must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[tokio::test]
    async fn the_portal_works_behind_mail() {
        let own = || getpriority_process(None).unwrap();
        let before = own();
        let threads = PortalThreads::start().unwrap();
        let handle = threads.handle();
        let (task, blocking) = (handle.spawn(async move { own() }), handle.spawn_blocking(own));
        assert_eq!(task.await.unwrap(), before + NICENESS);
        assert_eq!(blocking.await.unwrap(), before + NICENESS);
        assert_eq!(own(), before, "other threads keep theirs");
    }
}
