//! Body of the fuzz target: any bytes a client may send, without a socket. The ordinary tests replay it.

use std::sync::{Arc, OnceLock};

use blockdev_core::{BlockDevice, LoneLayer, MemoryStorage, RawLayer};

use crate::session::answer::{Message, Target, answer, refuse};
use crate::session::negotiation::{Agreed, Negotiation, Next, Secrecy};
use crate::session::offer::Offer;
use crate::session::terms::{Terms, Verdict};
use crate::wire::request::{REQUEST_BYTES, RequestHead};

/// Size of the disks, in bytes: a session reads and writes it many times over.
const DISK: usize = 256 << 10;
/// Requests of one session; the rest is more of the same.
const REQUESTS: usize = 64;

/// A client that sends `data` and hangs up; what it is told is well framed, and no longer than it may be.
///
/// # Panics
/// When it is not.
pub fn session(data: &[u8]) {
    let storage = Arc::new(MemoryStorage::from(vec![1; DISK]));
    let raw = RawLayer::open(storage).expect("memory has a length");
    let disk = LoneLayer::new(Box::new(raw));
    let offer = |name: &str, read_only| {
        let description = "of a fuzzer".into();
        Offer::new(name.into(), description, disk.info(), read_only, true)
    };
    let offers = [offer("disk", false), offer("read-only", true)];
    // Where TLS is required, the same bytes come as if within it once it has begun.
    Client { left: data }.haggle(&offers, Secrecy::Required);
    let mut client = Client { left: data };
    let Some(agreed) = client.haggle(&offers, Secrecy::Plain) else {
        return;
    };
    let terms = Terms::new(agreed.clone(), &offers[agreed.export]);
    let absent = OnceLock::new();
    let target = Target {
        device: &disk,
        absent: &absent,
    };
    for _ in 0..REQUESTS {
        let Some(reply) = client.ask(&terms, &target) else {
            break;
        };
        well_framed(&reply, terms.structured);
    }
    assert_eq!(disk.size(), DISK as u64);
}

struct Client<'a> {
    left: &'a [u8],
}

impl<'a> Client<'a> {
    fn send(&mut self, len: usize) -> Option<&'a [u8]> {
        let (sent, left) = self.left.split_at_checked(len)?;
        self.left = left;
        Some(sent)
    }

    fn haggle(&mut self, offers: &[Offer], secrecy: Secrecy) -> Option<Agreed> {
        let (mut negotiation, mut next) = Negotiation::new(offers, secrecy);
        let mut begun = secrecy != Secrecy::Required;
        loop {
            let wanted = match next {
                Next::Feed(wanted) => wanted,
                Next::Transmit(agreed) => {
                    assert!(begun, "an export without the TLS that it requires");
                    return Some(agreed);
                }
                Next::StartTls => {
                    begun = true;
                    next = negotiation.secured();
                    continue;
                }
                Next::End => return None,
            };
            let mut reply = Vec::new();
            next = negotiation.feed(self.send(wanted)?, false, &mut reply);
            assert!(reply.len() < 1 << 20, "{} bytes to an option", reply.len());
        }
    }

    fn ask(&mut self, terms: &Terms, target: &Target<'_>) -> Option<Vec<Message>> {
        let head = self.send(REQUEST_BYTES)?.try_into();
        let head: [u8; REQUEST_BYTES] = head.expect("so many were sent");
        match terms.judge(RequestHead::decode(&head)) {
            Verdict::End => None,
            Verdict::Refuse(refusal) => {
                self.send(refusal.payload as usize)?;
                Some(vec![refuse(&refusal, terms.structured)])
            }
            Verdict::Run(request) => {
                let payload = self.send(request.payload() as usize)?;
                let reply = answer(target, terms, &request, payload);
                let memory: usize = reply.iter().map(|m| m.head.len() + m.data.len()).sum();
                // Its data is within what was set aside; heads of chunks are short and few.
                let limit = request.memory() as usize + (64 << 10);
                assert!(memory <= limit, "{memory} bytes for {request:?}");
                Some(reply)
            }
        }
    }
}

/// Each message is as long as it says, and only the last one is the last.
fn well_framed(reply: &[Message], structured: bool) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    for (at, Message { head, data }) in reply.iter().enumerate() {
        if !structured {
            assert_eq!((reply.len(), head.len()), (1, 16), "one simple reply");
            let error = number(&head[4..8]);
            assert!(error == 0 || data.is_empty(), "an error with data");
            continue;
        }
        let last = number(&head[4..6]) == 1;
        assert_eq!(
            last,
            at + 1 == reply.len(),
            "the last chunk is said to be it"
        );
        assert_eq!(number(&head[16..20]), head.len() - 20 + data.len());
    }
    assert!(!reply.is_empty(), "every request is answered");
}
