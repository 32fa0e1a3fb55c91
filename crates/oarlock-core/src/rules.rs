//! Rules that the simulator switches off one at a time, to see its checkers catch it.

/// All hold in a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is one independent switch
pub struct Rules {
    /// Promises are durable before they are given.
    pub durable_promises: bool,
    /// A voter's start counts as its last acknowledgement.
    pub start_counts: bool,
    /// A promise is given only once the lease acknowledged last is over.
    pub promise_wait: bool,
    /// A lease is counted from the sending of the renewal, not from its acknowledgement.
    pub lease_from_sending: bool,
    /// Unguarded resources wait for the stop budget.
    pub stop_wait: bool,
    /// Nothing can be started under an epoch from before its release is proposed.
    pub seal_first: bool,
    /// A member leaves the set before commits stop waiting for it.
    pub leave_first: bool,
    /// Commits wait for fewer only once this agent itself has voided what one before it proposed.
    pub void_first: bool,
    /// A copy joins the set only once it has what was there when commits began to wait for it.
    pub join_catch_up: bool,
    /// A copy is rewound or replaced only under a committed permission.
    pub rejoin_committed: bool,
    /// Clients are let in once every member has what a recovery brought to light.
    pub open_flushed: bool,
    /// A voter that was told of other voters still knows it after a crash.
    pub voters_durable: bool,
    /// A voter without intact state has lost its identity.
    pub lost_identity: bool,
    /// A voter that acknowledged a long lease still knows it after a crash.
    pub lease_durable: bool,
    /// A lease of the former length stands for that length after the usual one became shorter.
    pub former_lease: bool,
    /// The voters change again only once those before them cannot act any more.
    pub voters_settle: bool,
    /// An epoch that the sentinel refuses to seal is not released.
    pub seal_heeded: bool,
    /// A service is not started before the groups that its own depends on are up.
    pub depends_heeded: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            durable_promises: true,
            start_counts: true,
            promise_wait: true,
            lease_from_sending: true,
            stop_wait: true,
            seal_first: true,
            leave_first: true,
            void_first: true,
            join_catch_up: true,
            rejoin_committed: true,
            open_flushed: true,
            voters_durable: true,
            lost_identity: true,
            lease_durable: true,
            former_lease: true,
            voters_settle: true,
            seal_heeded: true,
            depends_heeded: true,
        }
    }
}

impl Rules {
    /// All rules but the one of this name; `None` when there is no such rule.
    pub fn without(name: &str) -> Option<Rules> {
        let mut rules = Rules::default();
        let rule = match name {
            "durable_promises" => &mut rules.durable_promises,
            "start_counts" => &mut rules.start_counts,
            "promise_wait" => &mut rules.promise_wait,
            "lease_from_sending" => &mut rules.lease_from_sending,
            "stop_wait" => &mut rules.stop_wait,
            "seal_first" => &mut rules.seal_first,
            "leave_first" => &mut rules.leave_first,
            "void_first" => &mut rules.void_first,
            "join_catch_up" => &mut rules.join_catch_up,
            "rejoin_committed" => &mut rules.rejoin_committed,
            "open_flushed" => &mut rules.open_flushed,
            "voters_durable" => &mut rules.voters_durable,
            "lost_identity" => &mut rules.lost_identity,
            "lease_durable" => &mut rules.lease_durable,
            "former_lease" => &mut rules.former_lease,
            "voters_settle" => &mut rules.voters_settle,
            "seal_heeded" => &mut rules.seal_heeded,
            "depends_heeded" => &mut rules.depends_heeded,
            _ => return None,
        };
        *rule = false;
        Some(rules)
    }
}
