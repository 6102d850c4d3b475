package com.atguigu.yygh.user;

import com.atguigu.yygh.model.user.Patient;
import com.atguigu.yygh.model.user.User;
import com.atguigu.yygh.user.client.UserApi;
import java.util.List;
import org.springframework.web.bind.annotation.RestController;

@RestController
class UserController implements UserApi {

    private final Users users;

    UserController(Users users) {
        this.users = users;
    }

    @Override
    public List<User> users() {
        return users.all();
    }

    @Override
    public User user(long id) {
        return users.get(id);
    }

    @Override
    public List<Patient> patientsOf(long id) {
        users.get(id);
        return users.patients().stream().filter(patient -> patient.userId() == id).toList();
    }

    @Override
    public Patient add(long id, Patient patient) {
        users.get(id);
        return users.add(id, patient);
    }

    @Override
    public List<Patient> patients() {
        return users.patients();
    }

    @Override
    public Patient patient(long id) {
        return users.patient(id);
    }
}
