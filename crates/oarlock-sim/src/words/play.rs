//! A word played in a world: after each step what must be, and nothing lost.

use super::{Course, Letter, Pace, Told};
use crate::client::Heard;
use crate::database::Role;
use crate::directed::{Directed, server_on};
use crate::run::{Verdict, settle};
use crate::world::World;
use oarlock_core::ids::{GroupId, NodeId, ResourceId};
use oarlock_words::{Event, Expected};
use std::collections::BTreeSet;

/// How long a lone machine may take to serve; one that must not serve is watched for as long, in ms.
const ALONE_MS: u64 = 5_000;
/// How long two machines may take until both copies are in the set again, in milliseconds.
const BOTH_MS: u64 = 20_000;
/// Writes that must be acknowledged in each state that accepts them.
const WRITES: usize = 5;
/// Longest time between two power events of a hasty word, or with all off, in microseconds.
const PAUSE_US: u64 = 2_000_000;

/// A word being played.
struct Player {
    directed: Directed,
    pace: Pace,
    /// The two machines, and the one that loses its power with both.
    machines: [usize; 2],
    witness: Option<usize>,
    group: GroupId,
    database: ResourceId,
    expected: Expected,
    told: Told,
}

type Step = Result<(), String>;

/// Plays a word to its end.
pub(super) fn play(course: &Course) -> Told {
    let Some(mut player) = Player::new(course) else {
        return Told { wrong: Some((0, "the layout has no pair of databases".into())), ..Told::default() };
    };
    let mut step = 0;
    let went = player.begin().and_then(|()| {
        for letter in course.word.letters() {
            step += 1;
            player.step(step, *letter)?;
        }
        step += 1;
        player.end()
    });
    player.told.wrong = went.err().map(|text| (step, text));
    player.told.acknowledged = player.heard().len();
    player.told
}

impl Player {
    fn new(course: &Course) -> Option<Player> {
        let mut directed = Directed::new(&course.plan);
        directed.world.heard = Some(Heard::default());
        let config = directed.world.config.clone();
        let (group, known) = config.groups().find(|(id, group)| group.data_resource(*id).is_some())?;
        let host = |node: &NodeId| usize::from(node.0) - 1;
        let machines: [usize; 2] = known.nodes.iter().map(host).collect::<Vec<_>>().try_into().ok()?;
        let witness = config.nodes.iter().find(|node| node.witness).map(|node| host(&node.id));
        Some(Player {
            directed,
            pace: course.pace,
            machines,
            witness: witness.filter(|_| course.witness),
            group,
            database: known.data_resource(group)?,
            expected: Expected::begin(),
            told: Told::default(),
        })
    }

    fn world(&mut self) -> &mut World {
        &mut self.directed.world
    }

    fn heard(&self) -> &[u64] {
        self.directed.world.heard.as_ref().map_or(&[], |heard| &heard.writes)
    }

    /// Whose database lets clients in.
    fn serving(&self) -> Option<usize> {
        serving(&self.directed.world, self.machines)
    }

    fn begin(&mut self) -> Step {
        self.directed.until_settled().map_err(|missed| format!("there never was {}", missed.what))?;
        self.rows()
    }

    fn step(&mut self, number: usize, letter: Letter) -> Step {
        self.world().say(usize::MAX, || format!("STEP {number}: {}", letter.name()));
        let serves = if self.pace == Pace::Hasty { self.serving() } else { self.expected.serves };
        for event in self.expected.events(letter, serves) {
            self.event(event)?;
        }
        let Some((main, _)) = letter.asks() else { return Ok(()) };
        let serves = if self.pace == Pace::Hasty { self.serving() } else { self.expected.serves };
        if serves == Some(main) {
            self.told.accepted += 1;
        } else {
            self.told.refused.push(self.reason());
        }
        Ok(())
    }

    /// A machine gets or loses its power, or both lose it, and what must come of that comes.
    fn event(&mut self, event: Event) -> Step {
        let machines: &[usize] = match &event {
            Event::Off(machine) | Event::On(machine) => std::slice::from_ref(machine),
            Event::BothOff => &[0, 1],
        };
        let witness = self.witness;
        if let (Event::On(_), Some(witness)) = (event, witness) {
            self.world().power_on(witness);
        }
        for machine in machines {
            let host = self.machines[*machine];
            match event {
                Event::On(_) => self.world().power_on(host),
                Event::Off(_) | Event::BothOff => self.world().power_off(host),
            }
        }
        if let (Event::BothOff, Some(witness)) = (event, witness) {
            self.world().power_off(witness);
        }
        self.expected.after(event);
        self.comes()
    }

    fn comes(&mut self) -> Step {
        if self.pace == Pace::Hasty || self.expected.on == [false; 2] {
            let pause = self.world().rng.within(0, PAUSE_US);
            let until = self.world().now + pause;
            self.world().run_until(until);
        } else if let Some(machine) = self.expected.serves {
            self.served_by(machine)?;
        } else {
            self.refused()?;
        }
        self.intact()?;
        self.rows()
    }

    /// The database of a machine lets clients in, their writes are acknowledged, and whoever is on
    /// counts.
    fn served_by(&mut self, machine: usize) -> Step {
        let (machines, group, Expected { on, complete, .. }) = (self.machines, self.group, self.expected);
        let enough = self.heard().len() + WRITES;
        let began = self.world().now;
        let patience_ms = if on == [true; 2] { BOTH_MS } else { ALONE_MS };
        self.world().run_until_holds(began + patience_ms * 1_000, |world| {
            serving(world, machines) == Some(machine)
                && world.heard.as_ref().is_some_and(|heard| heard.writes.len() >= enough)
                && set(world, group, machines) == complete
                && (on != [true; 2] || world.unsettled().is_none())
        });
        self.intact()?;
        let passed_ms = (self.world().now - began) / 1_000;
        if passed_ms >= patience_ms {
            let unsettled = self.world().unsettled().unwrap_or_default();
            return Err(format!(
                "machine {} must serve and does not after {patience_ms} ms (power {on:?}; serving: {:?}; {unsettled}): {}",
                machine + 1,
                self.serving().map(|machine| machine + 1),
                self.reason(),
            ));
        }
        if on != [true; 2] {
            self.told.slowest_ms = self.told.slowest_ms.max(passed_ms);
        }
        Ok(())
    }

    /// Nobody serves, and it is said why.
    fn refused(&mut self) -> Step {
        let machines = self.machines;
        let until = self.world().now + ALONE_MS * 1_000;
        self.world().run_until_holds(until, |world| serving(world, machines).is_some());
        self.intact()?;
        if let Some(machine) = self.serving() {
            return Err(format!("machine {} serves, and its copy misses what was acknowledged", machine + 1));
        }
        if self.reason().is_empty() { Err("service is refused, and nobody says why".into()) } else { Ok(()) }
    }

    /// Why nobody serves, in the words of the first machine that is on.
    fn reason(&self) -> String {
        let core = (0..self.directed.world.hosts.len()).find_map(|host| self.directed.world.core(host));
        let lines = core.map(|core| core.explain(self.group)).unwrap_or_default();
        let blocked = lines.iter().find_map(|line| line.strip_prefix("blocked: "));
        blocked.unwrap_or_default().to_owned()
    }

    /// No rule of the simulator was broken.
    fn intact(&self) -> Step {
        self.directed.world.checks.broken.clone().map_or(Ok(()), Err)
    }

    /// Every acknowledged row is on whoever serves.
    fn rows(&mut self) -> Step {
        let Some(machine) = self.serving() else { return Ok(()) };
        let missing = self.missing(machine);
        missing.map_or(Ok(()), |id| {
            Err(format!("machine {} serves without row {id}, which was acknowledged", machine + 1))
        })
    }

    fn missing(&mut self, machine: usize) -> Option<u64> {
        let (host, database) = (self.machines[machine], self.database);
        let rows: BTreeSet<u64> =
            self.world().dir(host, database).map(|dir| dir.wal.iter().copied().collect()).unwrap_or_default();
        self.heard().iter().copied().find(|id| !rows.contains(id))
    }

    /// All on: both copies are in the set, and are the same once nobody writes.
    fn end(&mut self) -> Step {
        self.world().say(usize::MAX, || "STEP: all on".into());
        let healed = self.world().now;
        let settled_us = settle(self.world(), healed);
        Verdict::of(self.world(), settled_us).broken.map_or(Ok(()), Err)?;
        self.rows()?;
        let machines = self.machines;
        self.world().network.clients_cut.extend(machines);
        self.directed.run_ms(2_000);
        self.intact()?;
        self.equal()
    }

    /// Both copies are the same and have every acknowledged row, while nobody writes.
    fn equal(&mut self) -> Step {
        let (machines, database) = (self.machines, self.database);
        let [first, second] = machines.map(|host| {
            let dir = self.directed.world.dir(host, database);
            dir.map(|dir| (dir.history.clone(), dir.wal.clone()))
        });
        if first.is_none() || first != second {
            return Err("the copies are not equal with both machines on and nobody writing".into());
        }
        self.missing(0).map_or(Ok(()), |id| Err(format!("row {id} was acknowledged and is on neither machine")))
    }
}

/// Which of the two has a database that lets clients in.
fn serving(world: &World, machines: [usize; 2]) -> Option<usize> {
    let open = |machine: &usize| {
        let server = server_on(world, machines[*machine]);
        server.is_some_and(|server| server.role == Role::Primary && server.open)
    };
    (0..2).find(open)
}

/// Which of the two copies the committed set holds.
fn set(world: &World, group: GroupId, machines: [usize; 2]) -> [bool; 2] {
    let members = world.checks.truth.group(group).map(|group| &group.in_sync);
    machines.map(|host| members.is_some_and(|members| members.contains_key(&world.hosts[host].id)))
}

#[cfg(test)]
#[path = "play_tests.rs"]
mod tests;
