// Never ends by itself: the runtime stops it after FUNC_TIMEOUT and answers 408. Handler: timeout.handler
module.exports = {
  handler: function (event, context) {
    while (true) {}
  },
};
