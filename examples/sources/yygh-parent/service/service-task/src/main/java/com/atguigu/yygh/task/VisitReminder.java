package com.atguigu.yygh.task;

import com.atguigu.yygh.model.user.Patient;
import com.atguigu.yygh.order.client.OrderApi;
import com.atguigu.yygh.user.client.UserApi;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.stream.Collectors;
import org.springframework.context.annotation.Lazy;
import org.springframework.scheduling.annotation.Scheduled;
import org.springframework.stereotype.Component;

/** Tells those who have a visit tomorrow. */
@Component
@Lazy(false)
class VisitReminder {

    static final String NAME = "visit-reminder";
    static final String CRON = "0 0 8 * * *";

    private static final int KEPT = 20;

    private final ConcurrentLinkedDeque<Run> runs = new ConcurrentLinkedDeque<>();
    private final OrderApi orders;
    private final UserApi users;

    VisitReminder(OrderApi orders, UserApi users) {
        this.orders = orders;
        this.users = users;
    }

    record Run(LocalDateTime at, LocalDate visits, List<String> reminded) {
    }

    List<Run> runs() {
        return List.copyOf(runs);
    }

    @Scheduled(cron = CRON, zone = "Asia/Shanghai")
    Run run() {
        LocalDate tomorrow = LocalDate.now().plusDays(1);
        Map<Long, Patient> patients =
                users.patients().stream().collect(Collectors.toMap(Patient::id, patient -> patient));
        List<String> reminded = orders.visits(tomorrow).stream()
                .map(order -> patients.get(order.patientId()))
                .filter(patient -> patient != null)
                .map(patient -> patient.name() + " " + patient.phone())
                .toList();
        Run run = new Run(LocalDateTime.now().withNano(0), tomorrow, reminded);
        runs.addFirst(run);
        while (runs.size() > KEPT) {
            runs.removeLast();
        }
        return run;
    }
}
