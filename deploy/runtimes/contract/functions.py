"""The functions that the shared tests call, each in every language. They do the same thing as far as the languages allow."""

HELLO = {
    "python": """
        def hello(event, context):
            print(event)
            return "Hello world!"
    """,
    "nodejs": """
        module.exports = {
          hello: function (event, context) {
            console.log(event['event-id']);
            return 'Hello world!';
          },
        };
    """,
}
ECHO = {
    "python": """
        def handler(event, context):
            return event['data']
    """,
    "nodejs": """
        module.exports = { handler: (event, context) => event.data };
    """,
}
LENGTH = {
    "python": """
        def handler(event, context):
            return str(len(event['data']))
    """,
    "nodejs": """
        module.exports = { handler: (event) => String(event.data.length) };
    """,
}
RAISING = {
    "python": """
        def handler(event, context):
            raise RuntimeError('the secret of this failure')
    """,
    "nodejs": """
        module.exports = { handler() { throw new RangeError('the secret of this failure'); } };
    """,
}
DESCRIBE = {
    "python": """
        def handler(event, context):
            request = event['extensions']['request']
            shown = {key: event[key] for key in event if key not in ('data', 'extensions')}
            return {'event': shown, 'context': context, 'kind': type(event['data']).__name__, 'path': request.path,
                    'query': dict(request.query), 'method': request.method, 'topic': request.get_header('event-topic'),
                    'headers': {name.lower(): value for name, value in request.headers.items()}, 'keys': sorted(event)}
    """,
    "nodejs": """
        module.exports = {
          handler(event, context) {
            const { request } = event.extensions;
            const { data, extensions, ...rest } = event;
            const shown = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, value === undefined ? null : value]));
            return { event: shown, context, kind: Array.isArray(data) ? 'array' : typeof data, path: decodeURIComponent(request.path),
              query: request.query, method: request.method, topic: request.get('event-topic'), headers: request.headers,
              keys: Object.keys(event).sort() };
          },
        };
    """,
}
# Ends its process for the body `die`; writes a dot for each call.
DYING = {
    "python": """
        import os
        def handler(event, context):
            with open(os.environ['TEST_FOLDER'] + '/calls', 'a') as calls:
                calls.write('.')
            if event['data'] == b'die':
                os._exit(7)
            return 'alive'
    """,
    "nodejs": """
        const fs = require('fs');
        module.exports = {
          handler(event) {
            fs.appendFileSync(process.env.TEST_FOLDER + '/calls', '.');
            if (event.data === 'die') process.exit(7);
            return 'alive';
          },
        };
    """,
}
# Fails for an empty body.
FRAGILE = {
    "python": """
        def handler(event, context):
            return 1 // len(event['data'])
    """,
    "nodejs": """
        module.exports = { handler: (event) => String(event.data.substring(0)) };
    """,
}
# Waits at the gate (harness.Gate), then answers.
GATED = {
    "python": """
        def handler(event, context):
            pass_gate()
            return 'finished'
    """,
    "nodejs": """
        module.exports = { handler: () => passGate().then(() => 'finished') };
    """,
}
# Writes down each event's id; waits at the gate for the id `first`.
GATED_FIRST = {
    "python": """
        import os
        def handler(event, context):
            with open(os.environ['TEST_FOLDER'] + '/ids', 'a') as ids:
                ids.write(event['event-id'] + '\\n')
            if event['event-id'] == 'first':
                pass_gate()
    """,
    "nodejs": """
        const fs = require('fs');
        module.exports = {
          async handler(event) {
            fs.appendFileSync(process.env.TEST_FOLDER + '/ids', event['event-id'] + '\\n');
            if (event['event-id'] === 'first') await passGate();
          },
        };
    """,
}
# For the body `hang`: starts a process, tells its id at the gate and never ends.
HANGING = {
    "python": """
        import subprocess
        def handler(event, context):
            if event['data'] == b'hang':
                pass_gate(str(subprocess.Popen(['sleep', '1000']).pid))
            return 'fine'
    """,
    "nodejs": """
        const { spawn } = require('child_process');
        module.exports = {
          async handler(event) {
            if (event.data === 'hang') await passGate(String(spawn('sleep', ['1000']).pid));
            return 'fine';
          },
        };
    """,
}
# Spins for ever and refuses to be ended politely; writes a dot for each call.
SPINNING = {
    "python": """
        import os, signal
        def handler(event, context):
            with open(os.environ['TEST_FOLDER'] + '/calls', 'a') as calls:
                calls.write('.')
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    pass
    """,
    "nodejs": """
        const fs = require('fs');
        module.exports = {
          handler() {
            fs.appendFileSync(process.env.TEST_FOLDER + '/calls', '.');
            process.on('SIGTERM', () => {});
            for (;;);
          },
        };
    """,
}
# How many calls this copy of the module has had.
COUNTING = {
    "python": """
        count = 0
        def handler(event, context):
            global count
            count += 1
            return str(count)
    """,
    "nodejs": """
        let count = 0;
        module.exports = { handler: () => String(count += 1) };
    """,
}
BESIDE = {
    "python": """
        import beside
        def handler(event, context):
            return beside.WORD
    """,
    "nodejs": """
        const beside = require('./beside');
        module.exports = { handler: () => beside.WORD };
    """,
}
WORD = {"python": "WORD = 'beside'\n", "nodejs": "exports.WORD = 'beside';\n"}
# Modules that cannot serve `handler`.
BROKEN = {
    "python": ["import no_such_module_here", "other = 1", "def handler(:"],
    "nodejs": ["require('no-such-module-here');", "exports.other = 1;", "module.exports = {"],
}
