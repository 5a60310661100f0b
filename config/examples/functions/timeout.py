"""Never ends by itself: the runtime stops it after FUNC_TIMEOUT and answers 408. Handler: timeout.handler"""


def handler(event, context):
    while True:
        pass
