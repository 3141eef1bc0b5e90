//! Parameters with nameless parts: tuples, also under an alias, and inside of other types.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn's enums list all of Rust, and grow")]

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{FnArg, ImplItem, Item, Pat, PatType, Signature, TraitItem, Type};

use super::ModulePath;
use super::imports::{Exports, Scope};
use super::items::words_of;
use super::raw::RawModules;

/// What each type alias of the workspace stands for.
pub(super) struct Aliases(BTreeMap<ModulePath, Type>);

/// A module's view of them.
pub(super) struct Known<'a> {
    pub(super) aliases: &'a Aliases,
    pub(super) scope: &'a Scope<'a>,
    pub(super) exports: &'a Exports<'a>,
}

impl Aliases {
    pub(super) fn of(all: &RawModules) -> Self {
        let items =
            all.iter().flat_map(|(path, raw)| raw.items.iter().map(move |item| (path, item)));
        let aliases = items.filter_map(|(path, item)| match item {
            Item::Type(alias) => {
                let name = alias.ident.to_string();
                Some((path.iter().cloned().chain([name]).collect(), (*alias.ty).clone()))
            }
            _ => None,
        });
        Self(aliases.collect())
    }
}

impl Known<'_> {
    /// What an alias stands for; `None` where the name is no alias.
    fn alias(&self, words: &[String]) -> Option<&Type> {
        let own = match words {
            [name] => Some(self.scope.own(name)),
            _ => None,
        };
        let used = self.scope.resolve(words).map(|path| self.exports.definition(&path));
        [own, used].into_iter().flatten().find_map(|import| {
            self.aliases.0.get(&import.module.into_iter().chain(import.item).collect::<Vec<_>>())
        })
    }

    /// What a type is, without references.
    fn target<'a>(&'a self, mut of: &'a Type) -> &'a Type {
        // Aliases of aliases, but no endless ones.
        for _ in 0..8 {
            of = match of {
                Type::Reference(reference) => &reference.elem,
                Type::Paren(inner) => &inner.elem,
                Type::Path(path) => match self.alias(&words_of(&path.path)) {
                    Some(target) => target,
                    None => return of,
                },
                _ => return of,
            };
        }
        of
    }

    /// The longest tuple in some tokens of a type, and whether one holds another.
    fn tuples(&self, tokens: TokenStream, above: &mut Vec<String>) -> Tuples {
        let mut found = Tuples::default();
        // As far as the path goes that a name may end, and whether a name stands just before.
        let (mut words, mut after_name) = (Vec::new(), false);
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => {
                    let inner = self.tuples(group.stream(), above);
                    // `Fn(A, B)` takes two parameters: that is no tuple.
                    let is_tuple = group.delimiter() == Delimiter::Parenthesis && !after_name;
                    match parts(group.stream()) {
                        parts if is_tuple && parts > 1 => found.add(inner.inside(parts)),
                        _ => found.add(inner),
                    }
                    words.clear();
                    after_name = false;
                }
                TokenTree::Ident(name) => {
                    let name = name.to_string();
                    after_name = !matches!(name.as_str(), "mut" | "dyn" | "impl" | "const");
                    words.push(name);
                    let goes_on = matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':' && next.spacing() == Spacing::Joint);
                    if !goes_on {
                        found.add(self.tuples_of_alias(&words, above));
                        words.clear();
                    }
                }
                TokenTree::Punct(punct) => {
                    // A lifetime is no name.
                    if punct.as_char() == '\'' {
                        tokens.next();
                    }
                    if punct.as_char() != ':' {
                        words.clear();
                    }
                    after_name = false;
                }
                TokenTree::Literal(_) => after_name = false,
            }
        }
        found
    }

    fn tuples_of_alias(&self, words: &[String], above: &mut Vec<String>) -> Tuples {
        let name = words.join("::");
        match self.alias(words).filter(|_| !above.contains(&name)) {
            Some(target) => {
                above.push(name);
                let found = self.tuples(target.to_token_stream(), above);
                above.pop();
                found
            }
            None => Tuples::default(),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Tuples {
    longest: usize,
    nested: bool,
}

impl Tuples {
    fn add(&mut self, other: Self) {
        self.longest = self.longest.max(other.longest);
        self.nested |= other.nested;
    }

    /// All of this inside one more tuple.
    fn inside(self, parts: usize) -> Self {
        Self { longest: self.longest.max(parts), nested: self.nested || self.longest > 0 }
    }
}

/// How many things stand between commas that are not inside of `<>`; 0 without a comma.
fn parts(tokens: TokenStream) -> usize {
    let (mut depth, mut commas, mut open, mut before) = (0_i32, 0, false, ' ');
    for token in tokens {
        open = true;
        let TokenTree::Punct(punct) = token else {
            before = ' ';
            continue;
        };
        let arrow = std::mem::replace(&mut before, punct.as_char()) == '-';
        match punct.as_char() {
            '<' => depth += 1,
            '>' if !arrow => depth -= 1,
            ',' if depth == 0 => {
                commas += 1;
                open = false;
            }
            _ => {}
        }
    }
    if commas == 0 { 0 } else { commas + usize::from(open) }
}

/// The functions with a parameter that is a tuple, is taken apart as one, or holds one with more
/// than two parts or with another one inside.
pub(super) fn tuple_parameters(known: &Known<'_>, items: &[Item]) -> Vec<String> {
    let signatures = items.iter().flat_map(signatures);
    let found = signatures.filter(|signature| has_tuple(known, signature));
    found.map(|signature| signature.ident.to_string()).collect()
}

fn signatures(item: &Item) -> Vec<&Signature> {
    match item {
        Item::Fn(function) => vec![&function.sig],
        Item::Impl(block) => {
            let methods = block.items.iter().filter_map(|inner| match inner {
                ImplItem::Fn(method) => Some(&method.sig),
                _ => None,
            });
            methods.collect()
        }
        Item::Trait(item) => {
            let methods = item.items.iter().filter_map(|inner| match inner {
                TraitItem::Fn(method) => Some(&method.sig),
                _ => None,
            });
            methods.collect()
        }
        _ => Vec::new(),
    }
}

fn has_tuple(known: &Known<'_>, signature: &Signature) -> bool {
    let is_tuple = |input: &PatType| {
        // A unit has no parts.
        let of = known.target(&input.ty);
        matches!(&*input.pat, Pat::Tuple(_))
            || matches!(of, Type::Tuple(tuple) if !tuple.elems.is_empty())
    };
    let holds = |tokens: TokenStream| {
        let inside = known.tuples(tokens, &mut Vec::new());
        inside.longest > 2 || inside.nested
    };
    let generics = &signature.generics;
    let bounds = [generics.to_token_stream(), generics.where_clause.to_token_stream()];
    let typed = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => Some(input),
        FnArg::Receiver(_) => None,
    });
    bounds.into_iter().any(holds)
        || typed.into_iter().any(|input| is_tuple(input) || holds(input.ty.to_token_stream()))
}
