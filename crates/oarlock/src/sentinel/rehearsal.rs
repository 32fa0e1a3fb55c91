//! A lapse of nothing, at the start.
//!
//! The sentinel's memory is locked page by page as it is used. What a lapse needs must be there
//! before one comes: a page that has to be read from a disk then could be waited for without end. So
//! everything is done once, through the same functions, with a service and an address that do not
//! exist.

use std::net::{IpAddr, Ipv4Addr};

use oarlock_core::sentinel::{
    Address, Effect, Event, Exit, FromSentinel, Guard, HeldAddress, Main, Platform, Process, Record, Sentinel, Service,
};

use super::frame;
use super::shell::Shell;
use crate::process::clock;

/// Hidden, so that no service can have the name.
const NAME: &str = ".rehearsal";
/// Of a network for documentation: on no interface.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Shell {
    /// Does what a lapse does, to nothing.
    pub(super) fn rehearse(&mut self) {
        let mut machine = Sentinel::adopt(record(), Platform::default());
        let pid = u32::MAX;
        let events = [
            Event::Tick,
            Event::Exited { name: NAME.to_owned(), pid, exit: Exit::Signal(9) },
            Event::Emptied { name: NAME.to_owned() },
            Event::AddressGone { address: address() },
        ];
        for event in events {
            for effect in machine.handle(clock::boot_us(), event) {
                self.rehearse_effect(effect);
            }
        }
        self.services.groups.remove(NAME);
        self.journal.write("rehearsed a lapse");
    }

    fn rehearse_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Silence { services, addresses } => {
                for name in services {
                    if let Ok(group) = self.services.groups.create(&name) {
                        group.kill();
                        let _ = (group.is_populated(), group.remaining());
                    }
                    self.services.kill(&name);
                }
                self.look_for_empty();
                for address in addresses {
                    let _ = self.take_away(&address);
                }
            }
            Effect::Save => self.save(),
            Effect::Notify(notice) => {
                let line = format!("{notice:?}");
                let _ = (std::hint::black_box(line), frame::encode(&FromSentinel::Notice(notice)));
            }
            _ => {}
        }
    }
}

fn address() -> Address {
    Address { interface: "lo".to_owned(), ip: NOWHERE, prefix_bits: 32 }
}

/// Of a sentinel whose lease lapsed long ago while something exclusive ran.
fn record() -> Record {
    let guard = Some(Guard { group: "rehearsal".to_owned(), generation: 1, epoch: 1 });
    let main = Main::Running(Process { pid: u32::MAX, start_ticks: 0 });
    let service = Service { name: NAME.to_owned(), guard: guard.clone(), main, occupied: true, keep_group: false };
    Record {
        generation: 1,
        deadline_us: Some(1),
        services: vec![service],
        addresses: vec![HeldAddress { address: address(), guard, leaving: false }],
        ..Record::default()
    }
}
