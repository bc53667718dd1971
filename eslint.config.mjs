const recommended = "constructor-super for-direction getter-return no-async-promise-executor no-case-declarations no-class-assign no-compare-neg-zero no-cond-assign no-const-assign no-constant-condition no-debugger no-delete-var no-dupe-args no-dupe-class-members no-dupe-else-if no-dupe-keys no-duplicate-case no-empty no-ex-assign no-fallthrough no-func-assign no-global-assign no-inner-declarations no-invalid-regexp no-loss-of-precision no-misleading-character-class no-prototype-builtins no-redeclare no-regex-spaces no-self-assign no-setter-return no-shadow-restricted-names no-sparse-arrays no-this-before-super no-undef no-unreachable no-unsafe-finally no-unsafe-negation no-unused-labels no-unused-vars no-useless-catch no-useless-escape no-var prefer-const eqeqeq require-yield use-isnan valid-typeof no-eval no-implied-eval".split(" ");
const browser = "document window location localStorage URL URLSearchParams Blob atob getComputedStyle requestAnimationFrame setTimeout clearTimeout matchMedia ResizeObserver Option devicePixelRatio".split(" ");
export default [
  {
    languageOptions: { ecmaVersion: 2022, sourceType: "script", globals: Object.fromEntries(browser.map((name) => [name, "readonly"])) },
    rules: { ...Object.fromEntries(recommended.map((rule) => [rule, "error"])) },
  },
];
