export { Lexer, Marked, type Token } from 'marked';
