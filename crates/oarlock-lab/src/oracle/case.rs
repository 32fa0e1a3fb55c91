//! A random cluster in the words that both planners share.

use std::collections::BTreeSet;

/// A machine's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is there.
    Up,
    /// It is committed that it is dead.
    Dead,
    /// Promised dead by all others: the planner's next entry says so.
    Dying,
}

/// A server.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Whether it lives.
    pub life: Life,
    /// Taken out of service by the administrator.
    pub standby: bool,
}

/// A group; machines are positions among the case's.
#[derive(Debug, Clone)]
pub struct Group {
    /// Where it may run, most preferred first.
    pub order: Vec<usize>,
    /// Returns to a more preferred machine by itself.
    pub returns: bool,
    /// With a database: whose copies hold every acknowledged write.
    pub in_sync: Option<BTreeSet<usize>>,
    /// Of these, whose copy follows at the moment.
    pub streaming: BTreeSet<usize>,
    /// Who runs it.
    pub owner: Option<usize>,
    /// Who ran it last.
    pub last_owner: Option<usize>,
    /// Where the administrator asked for it to be.
    pub wanted: Option<usize>,
    /// Where it failed too often.
    pub worn: BTreeSet<usize>,
    /// Where it cannot run.
    pub unfit: BTreeSet<usize>,
}

/// A cluster at one moment. It has quorum: without, neither decides anything.
#[derive(Debug, Clone)]
pub struct Case {
    /// Servers; the witness, which runs nothing, is not among them.
    pub machines: Vec<Machine>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Nothing is started, stopped or moved.
    pub maintenance: bool,
}

impl Case {
    /// The case of this number, the same every time.
    pub fn draw(number: u64) -> Case {
        let mut draw = Draw(number.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        let machines: Vec<Machine> = (0..draw.within(2, 4)).map(|_| draw.machine()).collect();
        let groups = (0..draw.within(1, 2)).map(|_| draw.group(&machines)).collect();
        Case { machines, groups, maintenance: draw.chance(5) }
    }

    /// Whether a machine is there.
    pub fn is_up(&self, machine: usize) -> bool {
        self.machines[machine].life == Life::Up
    }

    /// Whether a machine could have a group at all, out of service or not.
    pub fn can_run(&self, group: &Group, machine: usize) -> bool {
        let complete = group.in_sync.as_ref().is_none_or(|members| members.contains(&machine));
        self.is_up(machine) && complete && group.order.contains(&machine) && !group.unfit.contains(&machine)
    }

    /// Whether a machine may be given a group.
    pub fn is_fit(&self, group: &Group, machine: usize) -> bool {
        self.can_run(group, machine) && !self.machines[machine].standby
    }

    /// The owner, when it lives.
    pub fn living_owner(&self, group: &Group) -> Option<usize> {
        group.owner.filter(|owner| self.is_up(*owner))
    }
}

/// A stream of numbers (xorshift64*) that depends on its seed alone.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn within(&mut self, low: usize, high: usize) -> usize {
        low + usize::try_from(self.next() % (high - low + 1) as u64).unwrap_or_default()
    }

    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn some(&mut self, of: &[usize], percent: u64) -> BTreeSet<usize> {
        of.iter().copied().filter(|_| self.chance(percent)).collect()
    }

    fn one(&mut self, of: &[usize]) -> usize {
        of[self.within(0, of.len() - 1)]
    }

    fn machine(&mut self) -> Machine {
        let life = match self.within(0, 9) {
            0 => Life::Dead,
            1 | 2 => Life::Dying,
            _ => Life::Up,
        };
        Machine { life, standby: self.chance(15) }
    }

    fn group(&mut self, machines: &[Machine]) -> Group {
        let mut order: Vec<usize> = (0..machines.len()).collect();
        for last in (1..order.len()).rev() {
            let other = self.within(0, last);
            order.swap(last, other);
        }
        let count = self.within(2, order.len());
        order.truncate(count);
        let in_sync = self.chance(50).then(|| {
            let mut members = self.some(&order, 70);
            members.insert(self.one(&order));
            members
        });
        // Whoever owns a database has a copy that counts.
        let able: Vec<usize> = in_sync.as_ref().map_or(order.clone(), |members| members.iter().copied().collect());
        let owner = self.chance(75).then(|| self.one(&able));
        let last_owner = owner.or_else(|| self.chance(70).then(|| self.one(&able)));
        let unfit = self.some(&order, 8).into_iter().filter(|machine| Some(*machine) != owner).collect();
        let streaming = self.some(&able, 85);
        // A wish for the owner is none: it is taken back by the entry that fulfils it.
        let wanted = self.chance(15).then(|| self.one(&order)).filter(|wanted| Some(*wanted) != owner);
        Group {
            returns: self.chance(40),
            worn: self.some(&order, 20),
            order,
            in_sync,
            streaming,
            owner,
            last_owner,
            wanted,
            unfit,
        }
    }
}
