//! Requests of HTTP clients that wait for their answer.

use std::{
    cell::RefCell,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use rialto_connector::RequestId;

use crate::http2_server::Responder;

/// The highest bit of a request's name is for those that do not wait.
const GENERATION_MAX: u32 = u32::MAX >> 1;

/// The request's name, if nobody waits for its answer: a number of the caller's below 2^63.
pub(crate) fn unattended(number: u64) -> RequestId {
    RequestId(number | 1 << 63)
}

/// The number that [`unattended`] was given.
pub(crate) fn number_of_unattended(request: RequestId) -> Option<u64> {
    (request.0 >> 63 == 1).then_some(request.0 & (u64::MAX >> 1))
}

/// One slot per request that waits. A slot that is used again has another generation, so the answer
/// to a request whose client went away is dropped.
#[derive(Default)]
pub(crate) struct Waiting(RefCell<Table>);

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Vacant,
    Waiting(Option<Waker>),
    Answered(Bytes),
    /// The answer goes out at once.
    Stream(Responder),
    Connection(Rc<dyn Respond>),
}

/// A connection that answers one request after the other.
pub(crate) trait Respond {
    /// Writes the answer to its request, at once as far as it can. False: nobody is there any more.
    fn respond(&self, packet: &[u8]) -> bool;
}

impl Waiting {
    /// Takes a slot; it is freed when the future is dropped.
    pub(crate) fn open(self: &Rc<Self>) -> Answer {
        let request = self.0.borrow_mut().take(State::Waiting(None));
        let waiting = Rc::clone(self);
        Answer { request, waiting }
    }

    /// Takes a slot for a stream, which is freed by the answer: to each packet the core has one.
    pub(crate) fn open_stream(&self, responder: Responder) -> RequestId {
        self.0.borrow_mut().take(State::Stream(responder))
    }

    /// Takes a slot for a connection, which is freed by the answer or by [`Self::forget`].
    pub(crate) fn open_connection(&self, connection: Rc<dyn Respond>) -> RequestId {
        self.0.borrow_mut().take(State::Connection(connection))
    }

    /// Nobody waits for the answer to a connection's request any more.
    pub(crate) fn forget(&self, request: RequestId) {
        let (index, generation) = split(request);
        let mut table = self.0.borrow_mut();
        if table.slots[index as usize].generation == generation {
            table.free(index);
        }
    }

    /// Hands an answer over, if somebody still waits for it. False: nobody does.
    pub(crate) fn answer(&self, request: RequestId, packet: Bytes) -> bool {
        let (index, generation) = split(request);
        let mut table = self.0.borrow_mut();
        let slot = table.slots.get_mut(index as usize);
        let Some(slot) = slot.filter(|slot| slot.generation == generation) else {
            return false;
        };
        match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Answered(packet);
                if let Some(waker) = waker {
                    waker.wake();
                }
                true
            }
            State::Stream(_) | State::Connection(_) => {
                let state = table.free(index);
                drop(table);
                match state {
                    State::Stream(responder) => responder.packet(packet),
                    State::Connection(connection) => connection.respond(&packet),
                    State::Vacant | State::Waiting(_) | State::Answered(_) => false,
                }
            }
            State::Vacant | State::Answered(_) => false,
        }
    }
}

impl Table {
    fn take(&mut self, state: State) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("sockets are fewer than 2^32")
        });
        let slot = &mut self.slots[index as usize];
        slot.state = state;
        RequestId(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// What the slot held. Its next request has another name.
    fn free(&mut self, index: u32) -> State {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MAX;
        self.free.push(index);
        mem::take(&mut slot.state)
    }
}

/// The answer to come.
pub(crate) struct Answer {
    request: RequestId,
    waiting: Rc<Waiting>,
}

impl Answer {
    /// The request's name on this link.
    pub(crate) fn request(&self) -> RequestId {
        self.request
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
fn split(request: RequestId) -> (u32, u32) {
    (request.0 as u32, (request.0 >> 32) as u32)
}

impl Future for Answer {
    type Output = Bytes;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Bytes> {
        let (index, _) = split(self.request);
        let slot = &mut self.waiting.0.borrow_mut().slots[index as usize];
        match &mut slot.state {
            State::Answered(packet) => Poll::Ready(mem::take(packet)),
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Vacant | State::Stream(_) | State::Connection(_) => {
                unreachable!("the slot is the future's as long as that lives")
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.waiting.0.borrow_mut().free(split(self.request).0);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn an_answer_reaches_its_request() {
        let waiting = Rc::new(Waiting::default());
        let mut answer = pin!(waiting.open());
        assert_eq!((&mut answer).now_or_never(), None);
        assert!(waiting.answer(answer.request(), Bytes::from_static(b"x")));
        assert_eq!(answer.now_or_never(), Some(Bytes::from_static(b"x")));
    }

    #[test]
    fn a_late_answer_misses_the_next_request_in_its_slot() {
        let waiting = Rc::new(Waiting::default());
        let gone = waiting.open();
        let request = gone.request();
        drop(gone);
        let mut next = pin!(waiting.open());
        assert_eq!(split(next.request()).0, split(request).0);
        assert!(!waiting.answer(request, Bytes::from_static(b"late")));
        assert_eq!((&mut next).now_or_never(), None);
    }

    #[test]
    fn an_unknown_request_is_nobody() {
        let waiting = Rc::new(Waiting::default());
        assert!(!waiting.answer(RequestId(7), Bytes::new()));
    }
}
