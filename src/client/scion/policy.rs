//! A policy for paths: access control lists of SCION's path policy language
//! ([specification](https://docs.scion.org/en/latest/dev/design/PathPolicy.html)).

use std::str::FromStr;

use scion_tracker_core::address::{Asn, Isd};

use super::path::PathInterface;

/// A list of rules, separated by commas. A rule is `+` (allow) or `-` (deny) and a hop predicate:
/// `ISD`, `ISD-AS`, `ISD-AS#IF` or `ISD-AS#IN,OUT`. 0 matches any.
///
/// For each interface of a path the first matching rule decides. One denied interface denies the
/// path. The last rule has no predicate and matches everything: `- 2, - 1-ff00:0:111, +`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    rules: Vec<Rule>,
    /// The last rule.
    allows_the_rest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allows: bool,
    hop: HopPredicate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HopPredicate {
    isd: Isd,
    asn: Asn,
    interfaces: Interfaces,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interfaces {
    /// The hop is entered or left through this interface.
    Either(u16),
    /// The hop is entered through the first and left through the second interface.
    InOut(u16, u16),
}

/// What is wrong with an access control list, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (at character {at})")]
pub struct AclError {
    /// The position of the error in characters, from 1.
    pub at: usize,
    /// The kind of error.
    pub kind: AclErrorKind,
}

/// What is wrong with an access control list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AclErrorKind {
    /// A rule does not begin with `+` or `-`.
    #[error("expected a rule that begins with + or -")]
    Action,
    /// The ISD of a predicate is invalid.
    #[error("expected a hop that begins with an ISD: a number up to 65535, or 0 for any")]
    Isd,
    /// The AS of a predicate is invalid.
    #[error("expected an AS such as 64512 or ff00:0:110, or 0 for any")]
    Asn,
    /// The interfaces of a predicate are invalid.
    #[error("expected one interface such as #1, or two such as #1,2; 0 stands for any")]
    Interface,
    /// A predicate has an interface, but no AS.
    #[error("interfaces need an AS: 0 is not allowed here")]
    InterfaceWithoutAs,
    /// The rule before this one matches everything.
    #[error("the rule before this one matches everything, so this one has no effect")]
    Unreachable,
    /// There is no last rule that matches everything.
    #[error("the last rule must match everything: + or - alone")]
    Default,
}

impl Default for Acl {
    /// Allows all paths.
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            allows_the_rest: true,
        }
    }
}

impl Acl {
    /// Whether a path with these interfaces may be used. They are in the order of travel: the first
    /// one leaves an AS, the second one enters the next.
    pub fn allows(&self, interfaces: &[PathInterface]) -> bool {
        interfaces.iter().enumerate().all(|(nth, interface)| {
            let enters = nth % 2 == 1;
            let rule = self.rules.iter().find(|it| it.hop.fits(interface, enters));
            rule.map_or(self.allows_the_rest, |rule| rule.allows)
        })
    }
}

impl HopPredicate {
    fn fits(&self, interface: &PathInterface, enters: bool) -> bool {
        let any_or = |wanted: u64, is: u64| wanted == 0 || wanted == is;
        let number = match self.interfaces {
            Interfaces::Either(number) => number,
            Interfaces::InOut(number, _) if enters => number,
            Interfaces::InOut(_, number) => number,
        };
        any_or(self.isd.0.into(), interface.ia.isd().0.into())
            && any_or(self.asn.to_u64(), interface.ia.asn().to_u64())
            && any_or(number.into(), interface.id.into())
    }

    const fn fits_all(&self) -> bool {
        let any = matches!(
            self.interfaces,
            Interfaces::Either(0) | Interfaces::InOut(0, 0)
        );
        self.isd.0 == 0 && self.asn.to_u64() == 0 && any
    }
}

impl FromStr for Acl {
    type Err = AclError;

    fn from_str(text: &str) -> Result<Self, AclError> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut rest = Some(text);
        while let Some(here) = rest {
            let here = here.trim_start();
            if rules.last().is_some_and(|rule| rule.hop.fits_all()) {
                return Err(AclError::new(text, here, AclErrorKind::Unreachable));
            }
            let (allows, here) = match here.split_at_checked(1) {
                Some(("+", here)) => (true, here),
                Some(("-", here)) => (false, here),
                _ => return Err(AclError::new(text, here, AclErrorKind::Action)),
            };
            let (hop, next) = split_rule(here);
            let hop = read_hop(hop).map_err(|(part, kind)| AclError::new(text, part, kind))?;
            rules.push(Rule { allows, hop });
            rest = next;
        }
        let last = rules.pop().filter(|rule| rule.hop.fits_all());
        let end = &text[text.len()..];
        let last = last.ok_or_else(|| AclError::new(text, end, AclErrorKind::Default))?;
        Ok(Self {
            rules,
            allows_the_rest: last.allows,
        })
    }
}

impl AclError {
    /// An error in this part of the text.
    fn new(text: &str, part: &str, kind: AclErrorKind) -> Self {
        let offset = part.as_ptr() as usize - text.as_ptr() as usize;
        let at = text[..offset].chars().count() + 1;
        Self { at, kind }
    }
}

/// Splits off the first rule, up to the comma before the next one. A comma directly before a digit
/// belongs to the interfaces.
fn split_rule(text: &str) -> (&str, Option<&str>) {
    let ends = |(at, _): &(usize, &str)| !text[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    match text.match_indices(',').find(ends) {
        Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Reads a predicate. An empty one matches everything. An error has the part of the text it
/// concerns.
fn read_hop(text: &str) -> Result<HopPredicate, (&str, AclErrorKind)> {
    let text = text.trim();
    let (place, interfaces) = match text.split_once('#') {
        Some((place, interfaces)) => (place, Some(interfaces)),
        None => (text, None),
    };
    let (isd, asn) = match place.split_once('-') {
        Some((isd, asn)) => (isd, Some(asn)),
        None => (place, None),
    };
    let isd = match isd {
        "" if text.is_empty() => Isd(0),
        isd => isd.parse().map_err(|_| (isd, AclErrorKind::Isd))?,
    };
    let asn = match asn {
        None => Asn::default(),
        Some(asn) => asn.parse().map_err(|_| (asn, AclErrorKind::Asn))?,
    };
    let interfaces = match interfaces {
        None => Interfaces::Either(0),
        Some(numbers) => {
            let read = match numbers.split_once(',') {
                Some((enters, leaves)) => Interfaces::InOut(number(enters)?, number(leaves)?),
                None => Interfaces::Either(number(numbers)?),
            };
            let any = matches!(read, Interfaces::Either(0) | Interfaces::InOut(0, 0));
            if asn.to_u64() == 0 && !any {
                return Err((numbers, AclErrorKind::InterfaceWithoutAs));
            }
            read
        }
    };
    Ok(HopPredicate {
        isd,
        asn,
        interfaces,
    })
}

fn number(text: &str) -> Result<u16, (&str, AclErrorKind)> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or((text, AclErrorKind::Interface))
}

#[cfg(test)]
mod tests {
    use super::super::path::tests::interface;
    use super::*;

    /// From 1-ff00:0:110 through 1-ff00:0:120 to 2-ff00:0:210.
    fn path() -> Vec<PathInterface> {
        [
            "1-ff00:0:110#1",
            "1-ff00:0:120#2",
            "1-ff00:0:120#3",
            "2-ff00:0:210#4",
        ]
        .map(interface)
        .into()
    }

    #[test]
    fn the_first_rule_that_fits_an_interface_decides() {
        for (acl, allows) in [
            ("+", true),
            ("-", false),
            ("- 2, +", false),
            ("- 3, +", true),
            ("+ 1, + 2-ff00:0:210, -", true),
            ("+ 1, -", false),
            ("+ 1-ff00:0:120, - 1, +", false),
            ("+ 1-ff00:0:110, + 1-ff00:0:120, - 1, +", true),
            ("- 1-ff00:0:120#3, +", false),
            ("- 1-ff00:0:120#4, +", true),
            ("- 1-ff00:0:120#2,3, +", false),
            ("- 1-ff00:0:120#3,2, +", true),
            ("- 1-ff00:0:120#2,0, +", false),
            ("- 1-ff00:0:120#0,2, +", false),
            ("- 0-ff00:0:120, +", false),
            ("+ 0", true),
            ("  -2,+0-0#0  ", false),
        ] {
            let read: Acl = acl.parse().unwrap();
            assert_eq!(read.allows(&path()), allows, "{acl}");
        }
        assert!(Acl::default().allows(&path()));
        assert!("- 1, -".parse::<Acl>().unwrap().allows(&[]));
    }

    #[test]
    fn errors_say_where_they_are() {
        for (acl, at, kind) in [
            ("", 1, AclErrorKind::Action),
            ("  1", 3, AclErrorKind::Action),
            ("+, x", 4, AclErrorKind::Unreachable),
            ("- 2", 4, AclErrorKind::Default),
            ("- 2, ", 6, AclErrorKind::Action),
            ("- 2; +", 3, AclErrorKind::Isd),
            ("- x, +", 3, AclErrorKind::Isd),
            ("- 65536, +", 3, AclErrorKind::Isd),
            ("- 2, é", 6, AclErrorKind::Action),
            ("- é, +", 3, AclErrorKind::Isd),
            ("- 1-, +", 5, AclErrorKind::Asn),
            ("- 1-x#1, +", 5, AclErrorKind::Asn),
            ("- 1-ff00:0:110#, +", 16, AclErrorKind::Interface),
            ("- 1-ff00:0:110#1,2,3, +", 18, AclErrorKind::Interface),
            ("- 1-ff00:0:110#+1, +", 16, AclErrorKind::Interface),
            ("- 1-ff00:0:110#65536, +", 16, AclErrorKind::Interface),
            ("- 1-0#1, +", 7, AclErrorKind::InterfaceWithoutAs),
            ("- #1, +", 3, AclErrorKind::Isd),
            ("+ 1-ff00:0:110 -, +", 5, AclErrorKind::Asn),
        ] {
            assert_eq!(acl.parse::<Acl>(), Err(AclError { at, kind }), "{acl}");
        }
        let error = "- 2".parse::<Acl>().unwrap_err().to_string();
        assert_eq!(
            error,
            "the last rule must match everything: + or - alone (at character 4)"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", like in "[-+ ,#:0-9a-fé]{0,30}") {
            for text in [text, like] {
                if let Err(error) = text.parse::<Acl>() {
                    proptest::prop_assert!((1..=text.chars().count() + 1).contains(&error.at));
                }
            }
        }
    }
}
