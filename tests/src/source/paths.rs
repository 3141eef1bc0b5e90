//! Paths in code that is not parsed: macros are not expanded, but what they name counts.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::UseTree;

use super::uses::leaves;

/// Words before which a path may begin, and which are none of it.
const KEYWORDS: [&str; 18] = [
    "as", "break", "const", "dyn", "else", "for", "if", "impl", "in", "let", "match", "move",
    "mut", "ref", "return", "use", "where", "while",
];

/// A path that may go on.
#[derive(Default)]
struct Open {
    words: Vec<String>,
    colons: usize,
    /// `x.name` is no path, `..name` may begin one.
    dots: usize,
}

/// Shows each path of two words or more in some code, and those that a `use` inside of it names.
pub(super) fn paths(code: TokenStream, see: &mut impl FnMut(&[String])) {
    let mut open = Open::default();
    for token in code {
        match token {
            TokenTree::Ident(ident) => open.word(&ident.to_string(), see),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                open.colons += 1;
                open.dots = 0;
            }
            TokenTree::Punct(punct) => {
                let dots = if punct.as_char() == '.' { open.dots + 1 } else { 0 };
                open.end(see);
                open.dots = dots;
            }
            TokenTree::Group(group) => {
                // The names of a `use` inside of a function.
                if group.delimiter() == Delimiter::Brace && open.colons == 2 {
                    let mut named = Vec::new();
                    if let Ok(tree) = syn::parse2::<UseTree>(TokenTree::Group(group.clone()).into())
                    {
                        leaves(&tree, &open.words, &mut named);
                    }
                    named.iter().for_each(|leaf| see(&leaf.words));
                }
                open.end(see);
                paths(group.stream(), see);
            }
            TokenTree::Literal(_) => open.end(see),
        }
    }
    open.end(see);
}

impl Open {
    fn word(&mut self, word: &str, see: &mut impl FnMut(&[String])) {
        let (goes_on, is_field) = (self.colons == 2, self.dots == 1);
        if !goes_on {
            self.end(see);
        }
        if !is_field && !KEYWORDS.contains(&word) {
            self.words.push(word.to_owned());
        }
        (self.colons, self.dots) = (0, 0);
    }

    fn end(&mut self, see: &mut impl FnMut(&[String])) {
        if self.words.len() > 1 {
            see(&self.words);
        }
        *self = Self::default();
    }
}
