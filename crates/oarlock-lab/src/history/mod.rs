//! What a writing client saw, attempt by attempt, and what follows from it.
//!
//! A history is the client's log: one line per attempt, in the order the attempts ended. The
//! checker compares it with the rows the database holds in the end; the gaps between
//! acknowledgements are the outages a user noticed.

mod check;
mod gaps;
mod record;
mod seen;
mod split;
mod stale;

pub use check::{Rows, Verdict, check};
pub use gaps::{Gap, RefusedSpan, gaps_above, outage_around, refused_spans};
pub use record::{Attempt, History, IdleChange, IdleEvent, Line, Outcome, Read, Stamp, Start, row_id};
pub use seen::{Backwards, Gone, age_on_standbys, backwards, gone, wrong as wrongly_seen};
pub use split::{Handover, handovers};
pub use stale::{Stale, stale};
