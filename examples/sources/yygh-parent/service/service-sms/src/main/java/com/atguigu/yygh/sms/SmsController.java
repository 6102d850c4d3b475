package com.atguigu.yygh.sms;

import com.atguigu.yygh.common.Masks;
import com.atguigu.yygh.common.YyghException;
import java.time.LocalDateTime;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.atomic.AtomicLong;
import org.springframework.http.HttpStatus;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;

/** Keeps the messages that a real service would hand to a provider. */
@RestController
@RequestMapping("/api/sms")
class SmsController {

    private static final int KEPT = 100;

    private static final Map<String, String> TEMPLATES = Map.of(
            "BOOKED", "您已成功预约{text}，请按时就诊。",
            "REMINDER", "温馨提示：您明日有预约就诊，{text}。",
            "CANCELLED", "您的预约{text}已取消。");

    private final ConcurrentSkipListMap<Long, Message> messages = new ConcurrentSkipListMap<>(Comparator.reverseOrder());
    private final AtomicLong ids = new AtomicLong();

    record NewMessage(String phone, String template, String text) {
    }

    record Message(long id, String phone, String template, String content, String state, LocalDateTime sent) {
    }

    SmsController() {
        send(new NewMessage("10000000001", "BOOKED", "海棠市第一人民医院 心血管内科"));
        send(new NewMessage("10000000002", "REMINDER", "仁和儿童医院 儿科 上午"));
    }

    @GetMapping("/templates")
    Map<String, String> templates() {
        return TEMPLATES;
    }

    @GetMapping("/messages")
    List<Message> messages() {
        return List.copyOf(messages.values());
    }

    @PostMapping("/messages")
    @ResponseStatus(HttpStatus.CREATED)
    Message send(@RequestBody NewMessage asked) {
        String template = TEMPLATES.get(asked.template());
        if (template == null) {
            throw YyghException.notFound("短信模板", asked.template());
        }
        if (asked.phone() == null || !asked.phone().matches("\\d{11}")) {
            throw YyghException.badRequest("手机号应为 11 位数字");
        }
        Message message = new Message(
                ids.incrementAndGet(),
                Masks.phone(asked.phone()),
                asked.template(),
                template.replace("{text}", String.valueOf(asked.text())),
                "已发送",
                LocalDateTime.now());
        messages.put(message.id(), message);
        while (messages.size() > KEPT) {
            messages.pollLastEntry();
        }
        return message;
    }
}
