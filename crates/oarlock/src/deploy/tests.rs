//! Plans from canned facts.
