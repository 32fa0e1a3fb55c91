//! One word, from a whole cluster to a whole cluster.

use super::WHOLE;
use super::store::Played;
use crate::history::{History, Outcome, Rows, Stamp, check};
use crate::layout::Part;
use crate::matrix::bed::{Bed, FRONTEND};
use crate::matrix::writers::Writer;
use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use oarlock_words::{Event, Expected, Letter, Word};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// How long a lone server may take to serve.
const ALONE: Duration = Duration::from_secs(30);
/// How long two servers may take until both copies are in the set again.
const BOTH: Duration = Duration::from_secs(60);
/// How long it may take until it is said why nobody serves.
const SAID: Duration = Duration::from_secs(15);
/// How long a refusal is watched.
const WATCHED: Duration = Duration::from_secs(2);
/// Longest time with all off, milliseconds.
const PAUSE_MS: u64 = 1_000;
/// Rows that must be acknowledged after each event that leaves somebody who serves.
const WRITES: usize = 5;
const MOVE: Duration = Duration::from_secs(30);
/// How long a writer may take to begin.
const WARM: Duration = Duration::from_secs(45);
/// Earlier than any attempt.
const BEFORE: Stamp = Stamp { wall_us: 0, mono_us: 0 };

/// A word being played.
struct Player<'a> {
    bed: &'a Bed,
    /// The two servers; the first is the one that serves when the word begins.
    machines: [String; 2],
    expected: Expected,
    users: Writer,
    /// Since when nobody may serve.
    silent: Option<Stamp>,
    /// When nobody was to serve.
    silences: Vec<(Stamp, Stamp)>,
    /// What came of each step, in words.
    steps: Vec<String>,
}

/// Plays a word. An error means that it could not begin; whatever goes wrong in it is its verdict.
pub fn play(bed: &Bed, word: &Word, build: &str, rng: &mut Rng) -> Result<Played> {
    let at = Stamp::now();
    let id = format!("word-{}", at.wall_us / 1_000);
    let dir = bed.lab.paths().target.join("lab/words").join(&id);
    let mut player = Player::begin(bed, &id, &dir).with_context(|| format!("word {word} cannot begin"))?;
    let mut played = Played {
        word: word.to_string(),
        variant: bed.variant(),
        at_s: at.wall_us / 1_000_000,
        build: build.to_owned(),
        passed: false,
        steps: Vec::new(),
        acknowledged: 0,
        lost: 0,
        took_s: 0.0,
        failures: Vec::new(),
    };
    let mut went = Ok(());
    for (number, letter) in (1..).zip(word.letters()) {
        went = player.step(*letter, rng).with_context(|| format!("step {number} ({})", letter.name()));
        if went.is_err() {
            break;
        }
    }
    let went = went.and_then(|()| player.heal().context("all on"));
    played.failures.extend(went.err().map(|error| format!("{error:#}")));
    if let Err(error) = player.end(&mut played) {
        played.failures.push(format!("{error:#}"));
    }
    played.steps = player.steps;
    played.passed = played.failures.is_empty();
    played.took_s = Stamp::now().ms_since(at) / 1_000.0;
    Ok(played)
}

impl<'a> Player<'a> {
    fn begin(bed: &'a Bed, id: &str, dir: &Path) -> Result<Player<'a>> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        bed.until_whole(WHOLE)?;
        let first = bed.owner(Part::Database)?;
        let second = bed.peer(&first)?.to_owned();
        let mut users = Writer::of_users(bed, FRONTEND, id, dir)?;
        users.until_acked(bed, WRITES, BEFORE, WARM)?;
        let (machines, expected) = ([first, second], Expected::begin());
        Ok(Player { bed, machines, expected, users, silent: None, silences: Vec::new(), steps: Vec::new() })
    }

    fn step(&mut self, letter: Letter, rng: &mut Rng) -> Result<()> {
        let events = self.expected.events(letter, self.expected.serves);
        if events.is_empty() {
            self.comes(rng)?;
        }
        for event in events {
            self.event(event)?;
            self.comes(rng)?;
        }
        let said = match (letter.asks(), self.expected.serves) {
            (None, _) => "off".to_owned(),
            (Some((main, _)), Some(serves)) if main == serves => format!("{} serves", serves + 1),
            (Some((main, _)), Some(serves)) => format!("{} refuses, {} serves", main + 1, serves + 1),
            (Some((main, _)), None) => format!("{} refuses: {}", main + 1, self.refusal()?),
        };
        self.steps.push(said);
        Ok(())
    }

    /// A change of power, done.
    fn event(&mut self, event: Event) -> Result<()> {
        let [first, second] = [self.machines[0].as_str(), self.machines[1].as_str()];
        let name = |machine: usize| [first, second][machine];
        self.silences.extend(self.silent.take().map(|since| (since, Stamp::now())));
        match event {
            Event::Off(machine) => self.bed.lab.poweroff(&[name(machine)])?,
            Event::On(machine) => self.bed.lab.poweron(&[name(machine)])?,
            Event::BothOff => self.bed.lab.poweroff(&[first, second])?,
        }
        self.expected.after(event);
        if self.expected.serves.is_none() {
            self.silent = Some(Stamp::now());
        }
        Ok(())
    }

    /// Waits for what must come of the power as it is.
    fn comes(&mut self, rng: &mut Rng) -> Result<()> {
        let Expected { on, serves, .. } = self.expected;
        let since = Stamp::now();
        if on == [false; 2] {
            sleep(Duration::from_millis(rng.u64(0..PAUSE_MS)));
            return Ok(());
        }
        let Some(machine) = serves else {
            self.bed.until("a reason why nobody serves", SAID, || self.refusal())?;
            sleep(WATCHED);
            return self.refusal().map(drop).context("a refusal did not last");
        };
        let patience = if on == [true; 2] { BOTH } else { ALONE };
        let what = format!("{} serves, power {on:?}", self.machines[machine]);
        self.bed.until(&what, patience, || self.served_by(machine))?;
        self.users.until_acked(self.bed, WRITES, since, patience)?;
        self.rows_so_far()
    }

    /// The group is started there, and the committed set is what it must be.
    fn served_by(&self, machine: usize) -> Result<()> {
        let cluster = self.bed.cluster()?;
        let group = cluster.group().context("no group with a database")?;
        let owner = group.owner.as_deref();
        let (state, reason) = (group.state.as_str(), group.reason.as_deref().unwrap_or_default());
        ensure!(
            owner == Some(self.machines[machine].as_str()) && state == "started",
            "{} is {state} at {owner:?}: {reason}",
            group.name
        );
        let members: Vec<_> = group.resources.iter().flat_map(|resource| &resource.members).collect();
        let in_sync = |name: &String| members.iter().any(|member| member.node == *name && member.in_sync);
        let set = [in_sync(&self.machines[0]), in_sync(&self.machines[1])];
        ensure!(set == self.expected.complete, "in sync {set:?}, not {:?}", self.expected.complete);
        match cluster.lacking() {
            Some(lacking) if self.expected.on == [true; 2] => bail!("{lacking}"),
            _ => Ok(()),
        }
    }

    /// Why nobody serves; an error if somebody does or nobody says why.
    fn refusal(&self) -> Result<String> {
        let cluster = self.bed.cluster()?;
        let group = cluster.group().context("no group with a database")?;
        let reason = group.reason.clone().unwrap_or_default();
        ensure!(
            group.state == "blocked" && !reason.is_empty(),
            "{} is {} at {:?} and should be blocked: {reason}",
            group.name,
            group.state,
            group.owner
        );
        Ok(reason)
    }

    /// Every row acknowledged so far is on whoever serves.
    fn rows_so_far(&self) -> Result<()> {
        let history = self.users.history()?.context("the users' client has no log")?;
        let verdict = check(&history, &self.users.rows(self.bed)?);
        ensure!(verdict.lost.is_empty() && verdict.doubled.is_empty(), "rows are wrong: {verdict}");
        Ok(())
    }

    /// All on, and whole again; a copy that alone holds everything must be the one that serves.
    fn heal(&mut self) -> Result<()> {
        self.silences.extend(self.silent.take().map(|since| (since, Stamp::now())));
        self.bed.lab.poweron(&[&self.machines[0], &self.machines[1]])?;
        let since = Stamp::now();
        self.bed.until_whole(BOTH)?;
        let owner = self.bed.owner(Part::Database)?;
        let place = self.machines.iter().position(|machine| *machine == owner).context("another server owns it")?;
        ensure!(self.expected.complete[place], "{owner} serves, and its copy misses what was acknowledged");
        self.users.until_acked(self.bed, WRITES, since, BOTH)
    }

    /// Nobody writes any more: what was acknowledged is there, and both copies hold the same.
    fn end(&mut self, played: &mut Played) -> Result<()> {
        let history = self.users.stop(self.bed)?.context("the users' client has no log")?;
        let rows = self.users.rows(self.bed)?;
        let verdict = check(&history, &rows);
        (played.acknowledged, played.lost) = (verdict.acked, verdict.lost.len());
        if !verdict.clean() {
            played.failures.push(format!("rows are wrong: {verdict}"));
        }
        played.failures.extend(spoken(&history, &self.silences));
        let owner = self.bed.owner(Part::Database)?;
        let other = self.bed.peer(&owner)?;
        self.bed.request(FRONTEND, &["move", self.bed.group(Part::Database).name, other])?;
        self.bed.until_owner(Part::Database, "the move", MOVE, |owner| owner == other)?;
        let theirs: Rows = self.bed.until("rows of the other copy", MOVE, || self.users.rows(self.bed))?;
        ensure!(theirs == rows, "the copies differ: {} rows at {owner}, {} at {other}", rows.len(), theirs.len());
        Ok(())
    }
}

/// Rows that were acknowledged although nobody was to serve, from their begin to their answer.
fn spoken(history: &History, silences: &[(Stamp, Stamp)]) -> Option<String> {
    let within = |begun: i64, done: i64| {
        silences.iter().any(|(from, to)| from.mono_us < begun && begun < to.mono_us && done < to.mono_us)
    };
    let acked = history.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Acked);
    let count = acked.filter(|attempt| within(attempt.begun.mono_us, attempt.done.mono_us)).count();
    (count > 0).then(|| format!("{count} rows were acknowledged while nobody was to serve"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, Start};

    fn at_ms(ms: i64) -> Stamp {
        Stamp { wall_us: ms * 1_000, mono_us: ms * 1_000 }
    }

    fn history(attempts: &[(i64, i64, Outcome)]) -> History {
        let attempt = |(id, (begun, done, outcome)): (i64, &(i64, i64, Outcome))| Attempt {
            id,
            writer: 0,
            outcome: *outcome,
            begun: at_ms(*begun),
            sent: None,
            done: at_ms(*done),
            error: None,
        };
        History {
            start: Start { run: "r".into(), host: "oar".into(), writers: 1, at: at_ms(0) },
            attempts: (1..).zip(attempts).map(attempt).collect(),
            reads: Vec::new(),
            idle: Vec::new(),
            end: None,
        }
    }

    #[test]
    fn an_acknowledgement_while_nobody_may_serve_is_wrong() {
        let silences = [(at_ms(100), at_ms(200))];
        let fine = history(&[(90, 99, Outcome::Acked), (150, 160, Outcome::Refused), (150, 210, Outcome::Acked)]);
        assert_eq!(spoken(&fine, &silences), None);
        let wrong = history(&[(150, 160, Outcome::Acked)]);
        assert!(spoken(&wrong, &silences).is_some());
    }
}
