package com.atguigu.yygh.user;

import com.atguigu.yygh.common.Masks;
import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.user.Patient;
import com.atguigu.yygh.model.user.User;
import java.time.LocalDate;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.springframework.stereotype.Repository;

/** People who do not exist, with telephone numbers that cannot. */
@Repository
class Users {

    private final List<User> users = List.of(
            user(1, "晴空", "10000000001", "已认证", LocalDate.of(2024, 3, 12)),
            user(2, "山月", "10000000002", "已认证", LocalDate.of(2024, 5, 2)),
            user(3, "小满", "10000000003", "认证中", LocalDate.of(2024, 8, 21)),
            user(4, "听雨", "10000000004", "已认证", LocalDate.of(2025, 1, 7)),
            user(5, "木棉", "10000000005", "未认证", LocalDate.of(2025, 6, 30)));

    private final List<Patient> patients = new CopyOnWriteArrayList<>(List.of(
            patient(1, 1, "示例一", "本人", true),
            patient(2, 1, "示例二", "父母", true),
            patient(3, 2, "示例三", "本人", true),
            patient(4, 2, "示例四", "子女", false),
            patient(5, 3, "示例五", "本人", true),
            patient(6, 4, "示例六", "本人", true),
            patient(7, 4, "示例七", "配偶", true),
            patient(8, 5, "示例八", "本人", false)));

    List<User> all() {
        return users;
    }

    User get(long id) {
        return users.stream()
                .filter(user -> user.id() == id)
                .findFirst()
                .orElseThrow(() -> YyghException.notFound("用户", id));
    }

    List<Patient> patients() {
        return List.copyOf(patients);
    }

    Patient patient(long id) {
        return patients.stream()
                .filter(patient -> patient.id() == id)
                .findFirst()
                .orElseThrow(() -> YyghException.notFound("就诊人", id));
    }

    synchronized Patient add(long userId, Patient asked) {
        if (asked.name() == null || asked.name().isBlank()) {
            throw YyghException.badRequest("就诊人姓名不能为空");
        }
        String phone = asked.phone() == null ? "" : asked.phone();
        Patient added = new Patient(
                patients.size() + 1L, userId, asked.name(), Masks.phone(phone), asked.relation(), asked.insured());
        patients.add(added);
        return added;
    }

    private static User user(long id, String nickname, String phone, String status, LocalDate registered) {
        return new User(id, nickname, Masks.phone(phone), status, registered);
    }

    private static Patient patient(long id, long userId, String name, String relation, boolean insured) {
        return new Patient(id, userId, name, Masks.phone("1000000000" + userId), relation, insured);
    }
}
