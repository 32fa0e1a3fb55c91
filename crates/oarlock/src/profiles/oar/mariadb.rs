//! OAR on MariaDB: what Debian's package of OAR 2.5.9 gets wrong there, in words and with the cure.
//! None of it is mended behind the administrator's back: the files belong to the package.

use super::check::Finding;
use super::conf::OarConf;
use super::database::Database;
use crate::sql::Engine;
use std::fs;
use std::path::Path;

/// What `oar-database --create` makes the tables from.
const STRUCTURE: &str = "usr/lib/oar/database/mysql_structure.sql";
/// What it fills one of them from.
const RULES: &str = "usr/lib/oar/database/mysql_default_admission_rules.sql";
/// Makes three backslashes of the two before a quotation mark that shall not end the quotation.
const MEND_RULES: &str = r"perl -pi -e 's/(?<!\\)\\\\\x27/\\\\\\\x27/g'";
/// The only `sql_mode` that OAR's statements were written for.
const SQL_MODE: &str = "NO_ENGINE_SUBSTITUTION";

/// Defects of the package's files below `root`; none where OAR uses another engine.
pub(super) fn defects(root: &Path, conf: &OarConf) -> Vec<Finding> {
    if conf.engine().ok() != Some(Engine::Mariadb) {
        return Vec::new();
    }
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut findings = Vec::new();
    if read(STRUCTURE).lines().any(|line| line.trim_start().starts_with("force ")) {
        findings.push(Finding::warning(
            format!(
                "/{STRUCTURE} names a column \"force\", a reserved word of MariaDB: oar-database --create stops there"
            ),
            format!("before creating OAR's database: sed -i 's/^force /`force` /' /{STRUCTURE}"),
        ));
    }
    if has_open_quote(&read(RULES)) {
        findings.push(Finding::warning(
            format!(
                "/{RULES} ends a quotation too early in rule 8: oar-database --create stops there, without the rules \
                 after it and without access for the read-only account"
            ),
            format!("before creating OAR's database: {MEND_RULES} /{RULES}"),
        ));
    }
    findings
}

/// Whether a quotation mark follows two backslashes: a backslash, and the end of the quotation.
fn has_open_quote(rules: &str) -> bool {
    let bytes = rules.as_bytes();
    bytes.windows(4).any(|four| four[0] != b'\\' && four[1..] == *b"\\\\'")
}

/// The `sql_mode` that OAR's own sessions get; `None` where it uses another engine, or nobody answers.
pub(super) async fn sql_mode(conf: &OarConf) -> Option<String> {
    let access = conf.database().ok().filter(|access| access.engine == Engine::Mariadb)?;
    let database = Database::open(&access).await.ok()?;
    database.sql_mode().await.ok().flatten()
}

/// Whether OAR's statements work in that mode.
pub(super) fn judge_sql_mode(mode: &str) -> Option<Finding> {
    let strict = mode.split(',').find(|word| word.starts_with("STRICT_") || word.starts_with("NO_ZERO_"))?;
    Some(Finding::error(
        format!("the sql_mode of oar's sessions has {strict}: oarnodesetting fails on its column expiry_date"),
        format!("set sql_mode={SQL_MODE} in the [mariadbd] part of the server's configuration on all servers"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(structure: &str, rules: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib/oar/database")).unwrap();
        fs::write(root.path().join(STRUCTURE), structure).unwrap();
        fs::write(root.path().join(RULES), rules).unwrap();
        root
    }

    const SHIPPED: (&str, &str) = (
        "create table t (\nforce ENUM('YES','NO')\n);\n",
        "values (3, 'a = \\\\\\'NO\\\\\\'');\nvalues (8, 'IN(\\\\'W\\\\')');\n",
    );

    #[test]
    fn the_packages_defects_are_told_with_their_cure() {
        let conf = OarConf::parse("DB_TYPE=\"mysql\"\n");
        let root = machine(SHIPPED.0, SHIPPED.1);
        let findings = defects(root.path(), &conf);
        assert_eq!(findings.len(), 2, "{findings:?}");
        // The cures are carried out as they stand there, and nothing is left to be found.
        for finding in &findings {
            let command = finding.hint.split_once(": ").unwrap().1;
            let command = command.replace(" /usr/", &format!(" {}/usr/", root.path().display()));
            assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
        }
        assert_eq!(defects(root.path(), &conf), []);
        let mended = fs::read_to_string(root.path().join(RULES)).unwrap();
        assert_eq!(mended, "values (3, 'a = \\\\\\'NO\\\\\\'');\nvalues (8, 'IN(\\\\\\'W\\\\\\')');\n");
    }

    #[test]
    fn oar_on_another_engine_is_not_concerned() {
        let root = machine(SHIPPED.0, SHIPPED.1);
        assert_eq!(defects(root.path(), &OarConf::parse("DB_TYPE=\"Pg\"\n")), []);
    }

    #[test]
    fn a_strict_mode_is_told() {
        assert!(judge_sql_mode("STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION").is_some());
        assert_eq!(judge_sql_mode("NO_ENGINE_SUBSTITUTION"), None);
        assert_eq!(judge_sql_mode(""), None);
    }
}
