"use strict";
/* exported remaining */

function remaining() {
  return null;
}
